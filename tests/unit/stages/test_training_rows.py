"""Examples as tokens: the loss sees the judgment, all of it, and nothing else."""

import re
from typing import Any

import pytest

from selftaught.errors import DataError
from selftaught.records import Example, Verdict
from selftaught.stages.training.rows import IGNORED, tokenise

END = 1


class StubTokenizer:
    """Words are tokens; `<end>` is 1. `merge` joins the last word of a prompt with the first of the answer."""

    eos_token_id = END

    def __init__(self, *, ends: bool = True, rewrites: bool = False, merge: bool = False, tail: str = "") -> None:
        self._ends = ends
        self._rewrites = rewrites
        self._merge = merge
        self._tail = tail
        self._words = ["<unk>", "<end>"]

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        text = ""
        for message in messages:
            content = message["content"]
            if message["role"] == "assistant" and self._rewrites:
                content = f"(thought nothing) {content}"
            end = " <end>" if self._ends or message["role"] == "user" else ""
            text += f"{message['role']}: {content}{end}{self._tail}\n"
        return text + ("assistant:" + (" say" if self._rewrites else "") if add_generation_prompt else "")

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        words = text.split()
        if self._merge:
            words = re.sub(r"assistant: (\S+)", r"assistant:\1", text).split()
        for word in words:
            if word not in self._words:
                self._words.append(word)
        return {"input_ids": [self._words.index(word) for word in words]}

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(self._words[number] for number in ids if number != END)

    def words(self, ids: Any) -> list[str]:
        return [self._words[number] for number in ids]


def example(text: str = "first is right [[A]]", verdict: Verdict = Verdict.A, number: int = 0) -> Example:
    return Example(
        id=f"p{number}",
        prompt=[{"role": "user", "content": "which one [[B]]"}],
        completion=[{"role": "assistant", "content": text}],
        verdict=verdict,
    )


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(StubTokenizer(), id="plain"),
        pytest.param(StubTokenizer(ends=False), id="template-without-an-end"),
        pytest.param(StubTokenizer(tail=" more"), id="template-goes-on-after-the-end"),
        pytest.param(StubTokenizer(rewrites=True), id="template-writes-past-turns-differently"),
        pytest.param(StubTokenizer(merge=True), id="tokens-merge-across-the-border"),
    ],
)
def test_labels_are_the_judgment_and_its_end(tokenizer: StubTokenizer) -> None:
    (row,) = tokenise([example()], tokenizer, {END}, 100).rows
    target = [label for label in row.labels if label != IGNORED]
    assert tokenizer.words(target) == ["first", "is", "right", "[[A]]", "<end>"]
    prompt = tokenizer.words(row.input_ids[: row.prompt_tokens])
    assert prompt[:6] == [
        "user:",
        "which",
        "one",
        "[[B]]",
        "<end>",
        *(["more"] if "more" in prompt else ["assistant:"]),
    ]
    assert row.labels[: row.prompt_tokens] == [IGNORED] * row.prompt_tokens
    assert len(row.labels) == len(row.input_ids)


def test_any_of_several_end_tokens_ends_a_row() -> None:
    tokenizer = StubTokenizer()
    stop = tokenizer("first", add_special_tokens=False)["input_ids"][0]
    with pytest.raises(DataError, match="not in the tokens to train on"):
        tokenise([example()], tokenizer, {END, stop}, 100)


def test_rows_that_would_be_cut_off_are_counted() -> None:
    tokenizer = StubTokenizer()
    examples = [example("long " * length + "[[A]]", number=length) for length in range(10)]
    found = tokenise(examples, tokenizer, {END}, 12)
    lengths = [len(row.input_ids) for row in found.rows]
    assert max(lengths) == 12
    assert (len(found.rows), found.cut_off) == (5, 5)
    assert found.tokens == sum(lengths)
    assert all(tokenizer.words(row.input_ids[-2:]) == ["[[A]]", "<end>"] for row in found.rows)


@pytest.mark.parametrize(
    ("examples", "limit", "message"),
    [
        pytest.param([example()] * 3, 5, r"all 3 examples are longer than 5 tokens \(the longest has 11\)", id="cut"),
        pytest.param([], 5, "there are no training examples", id="none"),
        pytest.param([example("so [[A]]", Verdict.B)], 50, r"verdict \[\[B\]\] is not in", id="other-verdict"),
        pytest.param([example("no verdict")], 50, r"verdict \[\[A\]\] is not in", id="no-verdict"),
    ],
)
def test_what_cannot_be_trained_on(examples: list[Example], limit: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokenise(examples, StubTokenizer(), {END}, limit)
