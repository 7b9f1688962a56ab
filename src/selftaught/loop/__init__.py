"""What is to be done next, decided purely: `plan(run, observed, now)`, and what to tell of it: `summarise`.

Nothing here does I/O, reads a clock or draws a random number. The local runner and the operator call the
same functions, so that a manifest means the same with and without a cluster.
"""
