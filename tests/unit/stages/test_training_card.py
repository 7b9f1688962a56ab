"""The model card says what a judge was made from."""

from pathlib import Path

import pytest

from selftaught.api.judging import Lora, Training
from selftaught.api.references import ModelSource
from selftaught.api.stage_config import TrainConfig
from selftaught.stages.training.card import CardFacts, base_licence, model_card

FACTS = CardFacts(
    epoch=2,
    examples=120,
    data_hash="d" * 64,
    steps=8,
    losses=(1.25, 0.5),
    licence="apache-2.0",
    processes=2,
    wrapped_as="FSDP2",
)


def config(training: Training) -> TrainConfig:
    return TrainConfig(
        run="team/judge",
        iteration=3,
        key="a" * 64,
        output="pvc://claim/out",
        model=ModelSource(uri="hf://owner/name", revision="c0ffee"),
        examples="pvc://claim/examples",
        training=training,
    )


def test_facts_are_in_it() -> None:
    card = model_card(config(Training(lora=Lora(rank=8, alpha=16))), FACTS)
    assert card.startswith("---\nlicense: apache-2.0\n")
    for fact in (
        "| base model | hf://owner/name at c0ffee |",
        "| iteration | 3 |",
        "| epoch | 2 of 2 |",
        f"| sha256 of the examples | {'d' * 64} |",
        "| mean loss by epoch | 1.2500, 0.5000 |",
        "| learning rate | 1e-6, Cosine |",
        "| adapters | rank 8, alpha 16, merged |",
        "| processes | 2 (FSDP2) |",
    ):
        assert fact in card
    assert card == model_card(config(Training(lora=Lora(rank=8, alpha=16))), FACTS)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        pytest.param("---\ntags: [x]\nlicense: mit\n---\n# A model\nlicense: other\n", "mit", id="in-the-metadata"),
        pytest.param("---\ntags: [x]\n---\nlicense: gpl\n", None, id="not-in-the-metadata"),
        pytest.param("# A model\n---\nlicense: mit\n---\n", None, id="no-metadata"),
        pytest.param(None, None, id="no-card"),
    ],
)
def test_the_licence_comes_from_the_base_model(tmp_path: Path, text: str | None, licence: str | None) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert base_licence(tmp_path) == licence
