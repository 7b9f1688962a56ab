"""Whoever is on call finds every word that the operator says in docs/operations.md."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from selftaught.api.reasons import RETRY_ANNOTATION, Reason
from selftaught.api.status import ConditionType
from selftaught.errors import INTERRUPTED_EXIT_CODE, PERMANENT_EXIT_CODE, TRANSIENT_EXIT_CODE
from selftaught_operator.metrics import Metrics
from selftaught_operator.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def described_metrics() -> Mapping[str, tuple[str, set[str]]]:
    """Type and labels of metrics by their names, as the page tells them."""
    return {
        row[0].strip("`"): (row[1], set(re.findall(r"`([a-z]+)`", row[2]))) for row in ROWS if "`selftaught_" in row[0]
    }


def real_metrics() -> Mapping[str, tuple[str, set[str]]]:
    """The same of the metrics that there are."""
    body = {
        "metadata": {"namespace": "lab", "name": "demo"},
        "status": {
            "conditions": [
                {
                    "type": "Complete",
                    "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "reason": "IterationsDone",
                }
            ],
            "progress": {"stage": "judge", "iteration": 0, "percentage": 1, "lastUpdatedTime": "2026-01-01T00:00:00Z"},
            "baseline": [
                {
                    "benchmark": "choice",
                    "accuracy": "0.5",
                    "consistentAccuracy": "0.5",
                    "confidenceInterval": ["0.4", "0.6"],
                    "unparsable": "0",
                    "pairs": 1,
                }
            ],
            "iterations": [{"index": 0}],
        },
    }
    metrics = Metrics()
    metrics.runs.see(body)
    found: dict[str, tuple[str, set[str]]] = {}
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    # Metrics without a sample yet tell their labels by themselves.
    for collector in vars(metrics).values():
        if hasattr(collector, "_labelnames") and collector._labelnames:
            name = f"{collector._name}_total" if collector._type == "counter" else collector._name
            found[name] = (collector._type, set(collector._labelnames))
    return found


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_row_or_a_word(reason: Reason) -> None:
    assert f"`{reason}`" in PAGE


@pytest.mark.parametrize("kind", list(ConditionType))
def test_every_condition_has_a_section(kind: ConditionType) -> None:
    assert f"### `{kind}`" in PAGE


def test_metrics_are_as_they_are_told() -> None:
    assert described_metrics() == real_metrics()


@pytest.mark.parametrize("setting", sorted(Settings.model_fields))
def test_every_setting_is_told(setting: str) -> None:
    cells = {name for row in ROWS for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert setting.upper() in cells


@pytest.mark.parametrize("code", [PERMANENT_EXIT_CODE, TRANSIENT_EXIT_CODE, INTERRUPTED_EXIT_CODE])
def test_every_exit_code_is_told(code: int) -> None:
    assert f"exit code {code}" in PAGE


def test_steering_uses_the_annotations_that_are_read() -> None:
    assert f"{RETRY_ANNOTATION}=" in PAGE
    assert "selftaught.dev/approval-2=" in PAGE
