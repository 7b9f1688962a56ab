"""What a person sees of a run, wherever it goes on: tables, charts, the outcome."""
