"""Examples as tokens: which of them the loss sees, and which rows do not fit."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from selftaught.errors import DataError
from selftaught.records import Example

IGNORED = -100
"""A label that carries no loss (torch's convention)."""


@dataclass(frozen=True)
class TokenRow:
    """One example; the loss is on `input_ids[prompt_tokens:]` alone."""

    id: str
    input_ids: tuple[int, ...]
    prompt_tokens: int

    @property
    def labels(self) -> list[int]:
        """As long as `input_ids`; the prompt is ignored."""
        return [IGNORED] * self.prompt_tokens + list(self.input_ids[self.prompt_tokens :])


@dataclass(frozen=True)
class TokenRows:
    """The rows to train on and how many were left out."""

    rows: tuple[TokenRow, ...]
    cut_off: int
    """Rows that are longer than the limit, so that their verdict would be cut off."""

    @property
    def tokens(self) -> int:
        """Non-padding tokens of one epoch."""
        return sum(len(row.input_ids) for row in self.rows)


def tokenise(examples: Iterable[Example], tokenizer: Any, end_ids: Collection[int], limit: int) -> TokenRows:
    """Send examples through the chat template, and leave out what is longer than `limit` tokens.

    `tokenizer` is a Hugging Face tokenizer with a chat template, `end_ids` are the tokens that end generation.
    Every row that is kept ends in one of them and holds its verdict in the labels. Raises DataError otherwise,
    or if no row is left.
    """
    rows: list[TokenRow] = []
    cut_off = 0
    longest = 0
    for example in examples:
        row = _row(example, tokenizer, end_ids)
        longest = max(longest, len(row.input_ids))
        if len(row.input_ids) > limit:
            cut_off += 1
            continue
        _check_target(example, row, tokenizer, end_ids)
        rows.append(row)
    if not rows:
        raise DataError(
            f"all {cut_off} examples are longer than {limit} tokens (the longest has {longest}); "
            "raise training.maxLength, or shorten the judgments by judging.sampling.maxTokens"
            if cut_off
            else "there are no training examples; look at the curate stage's statistics"
        )
    return TokenRows(rows=tuple(rows), cut_off=cut_off)


def _row(example: Example, tokenizer: Any, end_ids: Collection[int]) -> TokenRow:
    prompt_text = tokenizer.apply_chat_template(example.prompt, tokenize=False, add_generation_prompt=True)
    whole_text = tokenizer.apply_chat_template([*example.prompt, *example.completion], tokenize=False)
    prompt = _encode(tokenizer, prompt_text)
    whole = _encode(tokenizer, whole_text)
    if whole[: len(prompt)] == prompt:
        target = whole[len(prompt) :]
    elif whole_text.startswith(prompt_text):
        # Tokens merge across the border; in sampling the prompt is tokenised on its own, so do the same here.
        target = _encode(tokenizer, whole_text[len(prompt_text) :])
    else:
        # The template writes past turns differently (reasoning models do); what was sampled is the plain text.
        target = _encode(tokenizer, example.completion[0]["content"])
    end = next((position for position, token in enumerate(target) if token in end_ids), None)
    target = [*target, tokenizer.eos_token_id] if end is None else target[: end + 1]
    return TokenRow(id=example.id, input_ids=(*prompt, *target), prompt_tokens=len(prompt))


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_target(example: Example, row: TokenRow, tokenizer: Any, end_ids: Collection[int]) -> None:
    target = [label for label in row.labels if label != IGNORED]
    text = tokenizer.decode(target, skip_special_tokens=True)
    if f"[[{example.verdict.value}]]" not in text:
        raise DataError(
            f"example {example.id}: its verdict [[{example.verdict.value}]] is not in the tokens to train on; "
            "does the model's tokenizer know these characters?"
        )
    if target[-1] not in end_ids:
        raise DataError(f"example {example.id} does not end in an end-of-sequence token")
