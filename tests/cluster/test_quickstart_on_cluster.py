"""The quick start at a smaller size on a real cluster: real vLLM, real TRL on two pods, a person who steers it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from operator_deployment import deploy, undeploy
from real_cluster import ROOT, Cluster
from selftaught.api.run import SelfTaughtRun

EXAMPLES = ROOT / "manifests/examples"
NAME = "quickstart"
STAGE_SECONDS = 400
RUN_SECONDS = 1500


def a_small_world() -> str:
    """The manifest of the world, at its small size."""
    documents = list(yaml.safe_load_all((ROOT / "manifests/quickstart-world.yaml").read_text()))
    documents[1]["spec"]["template"]["spec"]["containers"][0]["command"] += ["--size", "small"]
    return yaml.safe_dump_all(documents)


def a_steered_quickstart() -> str:
    """The manifest with two iterations, a training on two pods that lasts a while, and a person to ask."""
    config_map, run = yaml.safe_load_all((EXAMPLES / "quickstart.yaml").read_text())
    spec = run["spec"]
    spec["iterations"] = 2
    spec["approval"] = {"required": "EveryIteration"}
    spec["training"] |= {"epochs": 12, "keepEpoch": "Last", "saveSteps": 4, "parallelism": {"nodes": 2}}
    # As JSON: PyYAML would write 5e-4 without quotes, which Kubernetes reads as a number.
    return "\n---\n".join(json.dumps(document) for document in (config_map, run))


class Person:
    """Somebody with kubectl and the plugin."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def plugin(self, *arguments: str) -> str:
        """What `kubectl selftaught …` printed."""
        program = Path(sys.executable).parent / "kubectl-selftaught"
        command = [str(program), *arguments, "--namespace", self.namespace]
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def look(self) -> SelfTaughtRun:
        """The run as it is."""
        text = self.cluster.kubectl("get", "selftaughtrun", NAME, f"--namespace={self.namespace}", "--output=json")
        body: dict[str, Any] = json.loads(text)
        return SelfTaughtRun.model_validate({key: body[key] for key in body if key != "kind_"})

    def wait_for(self, condition: str, seconds: float) -> None:
        """Until a condition is true."""
        wait = ("wait", f"--for=condition={condition}", f"--timeout={seconds:.0f}s", f"selftaughtrun/{NAME}")
        self.cluster.kubectl(*wait, f"--namespace={self.namespace}", timeout=seconds + 10)

    def logs(self, pod: str) -> str:
        """What a pod printed."""
        return self.cluster.kubectl("logs", pod, f"--namespace={self.namespace}")


@pytest.fixture(scope="module")
def person(cluster: Cluster) -> Iterator[Person]:
    with cluster.namespace() as namespace:
        cluster.apply(namespace, a_small_world())
        deploy(cluster, namespace)
        try:
            wait = ("wait", "--for=condition=Complete", f"--timeout={STAGE_SECONDS}s", "job/quickstart-world")
            cluster.kubectl(*wait, f"--namespace={namespace}", timeout=STAGE_SECONDS + 10)
            cluster.apply(namespace, a_steered_quickstart())
            yield Person(cluster, namespace)
        finally:
            undeploy(cluster, namespace)


@pytest.mark.timeout(RUN_SECONDS + 600)
def test_a_run_is_trained_on_two_pods_suspended_resumed_approved_and_completes(person: Person) -> None:
    def trains() -> bool:
        status = person.look().status
        assert status.phase != "Failed", status.summary.reason
        progress = status.progress
        return progress is not None and progress.stage == "train" and 5 <= progress.percentage < 90

    person.cluster.wait(trains, RUN_SECONDS, "the first training tells its progress")
    person.plugin("suspend", NAME)
    person.wait_for("Suspended", STAGE_SECONDS)
    pods = person.cluster.kubectl(
        "get", "pods", f"--namespace={person.namespace}", "--selector=selftaught.dev/stage=train"
    )
    assert "quickstart" not in pods
    person.plugin("resume", NAME)

    person.wait_for("AwaitingApproval", STAGE_SECONDS)
    first = person.look().status.iterations[1]
    train = next(stage for stage in first.stages if stage.name == "train")
    assert (train.attempts, train.failures) == (2, 0)
    records = [json.loads(line) for line in person.logs(f"job/{train.job_name}").splitlines() if line.startswith("{")]
    done = [record["done"] for record in records if record["type"] == "progress"]
    assert done[0] > 0, "the second attempt goes on from a checkpoint"
    result = next(record["result"] for record in records if record["type"] == "result")
    assert (result["training"]["processes"], result["training"]["wrappedAs"]) == (2, "DDP")
    person.plugin("approve", NAME, "--iteration", "1", "--note", "read ten judgments")

    def awaits_the_second() -> bool:
        iterations = person.look().status.iterations
        return len(iterations) > 2 and iterations[2].decision == "AwaitingApproval"

    person.cluster.wait(awaits_the_second, STAGE_SECONDS, "the second iteration awaits approval")
    decision = {"spec": {"approvals": [{"iteration": 2, "decision": "Approved", "by": "git"}]}}
    patch = ("patch", "selftaughtrun", NAME, "--type=merge", f"--patch={json.dumps(decision)}")
    person.cluster.kubectl(*patch, f"--namespace={person.namespace}")
    person.wait_for("Complete", STAGE_SECONDS)

    run = person.look()
    assert run.status.restarts_counted == 0
    assert run.status.summary.iteration == "2/2"
    assert [each.approval.by for each in run.status.iterations[1:] if each.approval is not None][1] == "git"
    assert run.status.iterations[1].approval is not None
    assert run.status.iterations[1].approval.note == "read ten judgments"
    best = run.status.best
    assert best is not None
    assert best.checkpoint is not None
    assert float(best.accuracy) > float(run.status.baseline[1].accuracy)
    columns = person.cluster.kubectl("get", "selftaughtruns", f"--namespace={person.namespace}")
    assert "Complete" in columns
    assert "2/2" in columns
    assert best.accuracy[:4] in columns
