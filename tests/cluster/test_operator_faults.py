"""Runs on a real API server with a real Job controller, while everything around the operator breaks."""

from cluster.operator_lab import OperatorLab, condition

STAGES = ["evaluate", "select", "generate", "i1-judge", "i1-curate", "i1-train", "i1-evaluate"]


def test_a_run_goes_to_complete_and_kubectl_tells(attended: OperatorLab) -> None:
    attended.apply_run("plain", iterations=2)
    attended.kubectl("wait", "selftaughtruns/plain", "--for=condition=Complete", "--timeout=90s")
    status = attended.status("plain")
    assert condition(status, "Complete") == "IterationsDone"
    assert status["restarts"] == 0
    assert len(attended.kubelet.work_of(f"{attended.namespace}/plain")) == 11
    header, row = attended.kubectl("get", "selftaughtruns", "plain").splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "BEST", "AGE"]
    assert row.split()[:5] == ["plain", "Complete", "2/2", "0.700", "(i2)"]
    header, row = attended.kubectl("get", "str", "plain", "--output=wide").splitlines()
    assert header.split()[7:] == ["BASELINE", "QUEUE", "RESTARTS", "REASON"]
    assert "IterationsDone: 2 iterations done" in row
    assert "0.600" in row
