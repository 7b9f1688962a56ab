"""When two instructions are the same, nearly the same, or share a passage.

Equal means equal after Unicode normalisation, without case and spacing: punctuation counts, since `1 + 2` and
`1 - 2` differ by nothing else. Passages are runs of words without punctuation.
"""

import re
import unicodedata
from collections.abc import Iterable

PASSAGE_WORDS = 13
"""Words of a passage whose sharing counts as contamination (as in arXiv 2005.14165, appendix C)."""

SHINGLE_WORDS = 5
PERMUTATIONS = 128

_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """The text without case, spacing and Unicode variants."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text, normalised."""
    return _WORD.findall(normalised(text))


def passages(text: str, length: int) -> set[str]:
    """All runs of `length` words; a shorter text is one run."""
    found = words(text)
    return {" ".join(found[start : start + length]) for start in range(max(1, len(found) - length + 1))}


class BenchmarkIndex:
    """Instructions of benchmarks that training must not have seen."""

    def __init__(self, instructions: Iterable[tuple[str, str]]) -> None:
        """From (benchmark, instruction) pairs."""
        self._equal: dict[str, str] = {}
        self._passages: dict[str, str] = {}
        for benchmark, text in instructions:
            self._equal.setdefault(normalised(text), benchmark)
            if len(words(text)) >= PASSAGE_WORDS:
                for passage in passages(text, PASSAGE_WORDS):
                    self._passages.setdefault(passage, benchmark)

    def equal(self, text: str) -> str | None:
        """The benchmark that has this very instruction."""
        return self._equal.get(normalised(text))

    def sharing(self, text: str) -> tuple[str, str] | None:
        """The benchmark that shares a passage, and the passage."""
        for passage in sorted(passages(text, PASSAGE_WORDS)):
            if passage in self._passages:
                return self._passages[passage], passage
        return None


class NearDuplicates:
    """Texts seen so far, to find those that a new one nearly equals (MinHash LSH over word 5-grams).

    Candidates are verified by their real similarity, so nothing is called a duplicate wrongly; a pair just above
    the threshold is found with a probability of about 0.9.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._threshold = threshold
        self._empty = MinHash(num_perm=PERMUTATIONS, seed=1)
        # Verification makes false candidates harmless, so the bands are chosen to miss few.
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
        self._texts: dict[str, str] = {}

    def similar_to(self, key: str, text: str) -> str | None:
        """The key of the most similar text at or above the threshold; if there is none, remember this one."""
        shingles = passages(text, SHINGLE_WORDS)
        sketch = self._empty.copy()
        sketch.update_batch([shingle.encode() for shingle in shingles])
        best: tuple[float, str] | None = None
        for other in sorted(self._index.query(sketch)):
            similarity = jaccard(shingles, passages(self._texts[other], SHINGLE_WORDS))
            if similarity >= self._threshold and (best is None or similarity > best[0]):
                best = similarity, other
        if best:
            return best[1]
        self._index.insert(key, sketch)
        self._texts[key] = text
        return None


def jaccard(one: set[str], other: set[str]) -> float:
    """Shared part of two sets, 0 to 1."""
    return len(one & other) / len(one | other)
