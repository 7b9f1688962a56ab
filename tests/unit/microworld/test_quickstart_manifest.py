"""The quick start's manifest asks in the words that the micro world's seed was taught."""

from pathlib import Path

from selftaught import manifests
from selftaught.microworld.prompts import PROMPTS

QUICKSTART = Path(__file__).parents[3] / "manifests/examples/quickstart.yaml"


def test_the_prompts_are_the_micro_worlds() -> None:
    manifest = manifests.load([QUICKSTART])
    (data,) = manifest.config_maps.values()
    assert {name.removesuffix(".txt"): text for name, text in data.items()} == dict(PROMPTS)
