import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.judging.modifications import Modification, guided_form, parse_modification

GOOD = "<instruction>Sort down</instruction><response>3 2 1</response>"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD, id="as asked"),
        pytest.param(f"\n {GOOD}\n", id="white space around"),
        pytest.param("<instruction> Sort down\n</instruction>\n<response>\n3 2 1 </response>", id="white space inside"),
    ],
)
def test_the_form_that_was_asked_for(text: str) -> None:
    assert parse_modification(text) == Modification("Sort down", "3 2 1")


def test_empty_parts_are_told_apart_from_broken_forms() -> None:
    assert parse_modification("<instruction> </instruction><response></response>") == Modification("", "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"Sure! {GOOD}", id="words before"),
        pytest.param(f"{GOOD} Done.", id="words after"),
        pytest.param(GOOD.removesuffix("</response>"), id="cut off"),
        pytest.param("<response>3</response><instruction>x</instruction>", id="other order"),
        pytest.param(GOOD + GOOD, id="twice"),
        pytest.param("<instruction>a<instruction>b</instruction><response>c</response>", id="nested"),
        pytest.param("<instruction>a</instruction> and <response>c</response>", id="words between"),
        pytest.param("<Instruction>a</Instruction><response>c</response>", id="other markers"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert parse_modification(text) is None


parts = st.text().filter(lambda text: "<instruction>" not in text and "<response>" not in text and "</" not in text)


@given(parts, parts)
def test_any_content_survives(instruction: str, response: str) -> None:
    text = f"<instruction>{instruction}</instruction><response>{response}</response>"
    assert parse_modification(text) == Modification(instruction.strip(), response.strip())


pieces = st.sampled_from(["<instruction>", "</instruction>", "<response>", "</response>", "a", " "])


@given(st.lists(pieces).map("".join))
def test_accepted_texts_are_exactly_the_form(text: str) -> None:
    found = parse_modification(text)
    if found is not None:
        assert "".join(text.split()) == (
            f"<instruction>{found.instruction}</instruction><response>{found.response}</response>".replace(" ", "")
        )


TEXT = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), min_size=1)


@given(instruction=TEXT, response=TEXT, max_tokens=st.integers(1, 400))
def test_what_is_guided_parses_and_is_bounded(instruction: str, response: str, max_tokens: int) -> None:
    text = f"<instruction>{instruction}</instruction><response>{response}</response>"
    guided = re.fullmatch(guided_form(max_tokens), text) is not None
    if guided:
        assert parse_modification(text) == Modification(instruction.strip(), response.strip())
    assert guided == (len(instruction) <= bounds(max_tokens)[0] and len(response) <= bounds(max_tokens)[1])


def bounds(max_tokens: int) -> tuple[int, ...]:
    return tuple(int(bound) for bound in re.findall(r"\{1,(\d+)\}", guided_form(max_tokens)))


def test_both_parts_fit_into_the_answer_at_two_characters_a_token() -> None:
    assert bounds(256) == (112, 336)
    assert min(bounds(1)) >= 1
