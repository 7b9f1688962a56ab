import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging.verdicts import guided_pattern, parse_verdict, verdict_of
from selftaught.records import Verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("A is right. [[A]]", Verdict.A, id="A"),
        pytest.param("[[B]]", Verdict.B, id="B alone"),
        pytest.param("[[B]] as said: [[B]].", Verdict.B, id="twice the same"),
        pytest.param("Not [[A]] but [[B]]", Verdict.UNPARSABLE, id="both"),
        pytest.param("A is better", Verdict.UNPARSABLE, id="none"),
        pytest.param("", Verdict.UNPARSABLE, id="empty"),
        pytest.param("[A] [[a]] [[ A ]] [[C]]", Verdict.UNPARSABLE, id="near misses"),
    ],
)
def test_verdict_of_a_text(text: str, verdict: Verdict) -> None:
    assert parse_verdict(text) is verdict


def test_a_text_that_was_cut_off_has_no_verdict() -> None:
    assert verdict_of("so far [[A]] but", "length") is Verdict.UNPARSABLE
    assert verdict_of("finally [[A]]", "stop") is Verdict.A


@given(st.text(st.sampled_from("[]ABC x")))
def test_exactly_one_kind_of_verdict_counts(text: str) -> None:
    kinds = set(re.findall(r"\[\[([AB])\]\]", text))
    assert parse_verdict(text) is (Verdict(kinds.pop()) if len(kinds) == 1 else Verdict.UNPARSABLE)


@given(st.from_regex(guided_pattern(20), fullmatch=True))
def test_whatever_a_guided_judge_writes_has_a_verdict(text: str) -> None:
    assert parse_verdict(text) is not Verdict.UNPARSABLE
    assert len(text) <= 2 * 20 + len("[[A]]")
