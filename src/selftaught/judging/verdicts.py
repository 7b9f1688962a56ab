"""What a judgment says. Strict: taken from the generated text only, and never guessed."""

from selftaught.records import Verdict

CHARACTERS_PER_TOKEN = 2
"""Fewer than in most texts, so that a guided text comes to its end before it is cut off."""


def guided_pattern(max_tokens: int) -> str:
    """What a guided judgment must match: an explanation without brackets, then exactly one verdict.

    The explanation is bounded, because a small model that may go on forever does.
    """
    return rf"[^\[\]]{{1,{CHARACTERS_PER_TOKEN * max_tokens}}}\[\[[AB]\]\]"


def parse_verdict(text: str) -> Verdict:
    """`[[A]]` or `[[B]]`, however often; with both or neither there is no verdict.

    The field's parsers disagree on texts with both; a judge that contradicts itself has not decided.
    """
    says_a, says_b = "[[A]]" in text, "[[B]]" in text
    if says_a == says_b:
        return Verdict.UNPARSABLE
    return Verdict.A if says_a else Verdict.B


def verdict_of(text: str, finish_reason: str) -> Verdict:
    """The verdict of a judgment that may have been cut off: an unfinished text could still contradict itself.

    Also keeps texts without an end out of training, from which a judge would learn not to stop.
    """
    return parse_verdict(text) if finish_reason == "stop" else Verdict.UNPARSABLE
