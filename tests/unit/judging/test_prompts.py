import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.instructions import Category, ExpectedLength
from selftaught.errors import ManifestError
from selftaught.judging import prompts

VALUES = {"instruction": "i", "response": "r", "response_a": "a", "response_b": "b"}


@given(st.text(), st.text(), st.text())
def test_what_stands_inside_a_value_is_never_filled_in(instruction: str, first: str, second: str) -> None:
    values = {
        "instruction": instruction + "{{response_a}}",
        "response_a": first + "{{response_b}}",
        "response_b": second,
    }
    filled = prompts.render("I {{instruction}} A {{response_a}} B {{ response_b }}", values)
    assert filled == f"I {values['instruction']} A {values['response_a']} B {second}"


def test_a_placeholder_without_value_is_an_error() -> None:
    with pytest.raises(ManifestError, match=r"\{\{answer\}\}"):
        prompts.render("{{instruction}} {{answer}}", VALUES)


@pytest.mark.parametrize("name", prompts.PLACEHOLDERS)
def test_built_in_templates_pass_their_own_check(name: str) -> None:
    text = getattr(prompts.BUILT_IN, name)
    assert prompts.load({name: text}) == prompts.BUILT_IN


def test_both_orders_share_the_instruction_as_a_prefix() -> None:
    before = prompts.BUILT_IN.judge.index("{{response_a}}")
    assert prompts.BUILT_IN.judge.index("{{instruction}}") < before < prompts.BUILT_IN.judge.index("{{response_b}}")


def test_categorise_names_all_that_can_be_answered() -> None:
    assert all(f'"{word}"' in prompts.BUILT_IN.categorise for word in (*Category, *ExpectedLength))


def test_given_templates_replace_built_in_ones() -> None:
    texts = prompts.load({"respond.txt": "Answer: {{ instruction }}"})
    assert texts.respond == "Answer: {{ instruction }}"
    assert texts.judge == prompts.BUILT_IN.judge
    assert prompts.prompts_hash(texts) != prompts.prompts_hash(prompts.BUILT_IN)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        pytest.param({"juge": "x"}, "'juge'; there are categorise, respond, modify, judge", id="unknown name"),
        pytest.param({"respond": "Hi"}, r"'respond' lacks \{\{instruction\}\}", id="missing placeholder"),
        pytest.param(
            {"respond": "{{instruction}} {{response}}"}, r"mentions \{\{response\}\}", id="placeholder of another one"
        ),
        pytest.param({"respond": "{{instruction}}", "respond.txt": "{{instruction}}"}, "given twice", id="given twice"),
    ],
)
def test_unusable_templates_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        prompts.load(texts)
