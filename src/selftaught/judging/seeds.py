"""Seeds of single requests."""

import hashlib


def request_seed(seed: int, iteration: int, pair_id: str, order: str, index: int) -> int:
    """A seed in 0 … 2^63-1 for one sample: the same on every machine, unrelated between samples.

    `order` is any word that tells requests about the same pair apart (an order, or the name of a call).
    """
    name = "\0".join((str(seed), str(iteration), pair_id, order, str(index)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
