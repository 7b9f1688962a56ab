"""The seed's tokenizer: one token per word, and the chat template around it.

Words are split at white space only, and decoding joins them by single spaces, so `<instruction>`
or `[[A]]` are ordinary tokens that survive `skip_special_tokens=True`. A word that no text of the
micro world contains becomes the unknown token.
"""

from typing import TYPE_CHECKING

from selftaught.judging.prompts import render
from selftaught.microworld.prompts import MODIFICATION, PROMPTS
from selftaught.microworld.tasks import DIGITS, FAMILIES, LETTERS
from selftaught.microworld.traces import WORDING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = ("system", "user", "assistant")

CONTEXT_TOKENS = 256
"""Far more than any message of the micro world needs."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + ' <|end|> ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)

_PLACEHOLDERS = ("instruction", "response", "response_a", "response_b")


def vocabulary() -> list[str]:
    """Every token, special ones first; the same list in the same order each time."""
    texts = [
        *(phrasing for family in FAMILIES for phrasing in family.phrasings),
        *(render(prompt, dict.fromkeys(_PLACEHOLDERS, "")) for prompt in PROMPTS.values()),
        render(MODIFICATION, dict.fromkeys(_PLACEHOLDERS, "")),
        *WORDING,
        *LETTERS,
        *(letter.upper() for letter in LETTERS),
        *(str(number) for number in range(int(DIGITS[-1]) + 2)),
    ]
    words = sorted({word for text in texts for word in text.split()})
    return [PAD, END, UNKNOWN, *(f"<|{role}|>" for role in ROLES), *words]


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """The tokenizer in Hugging Face form, with its chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    model = WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
    )
