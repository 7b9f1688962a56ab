"""How much the operator asks of the API server, how fast it goes on, and how much memory it holds.

    python hack/bench_operator.py [--parts writes,latency,idle] [--active 100] [--idle 1000] [--idle-seconds 600]

On the test cluster (`make cluster`): API server, Job controller and scheduler are real, pods are those of a stub
kubelet that ends each stage after a few seconds. Requests are counted from the API server's audit log, by the
operator's account. Traffic stays on this machine.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from cluster.operator_lab import OperatorLab, OperatorProcess
from cluster.stub_kubelet import StubKubelet
from real_cluster import Cluster, connect
from selftaught_operator.transport import ApiTransport

Object = dict[str, Any]
WRITES = ("create", "update", "patch", "delete", "deletecollection")
STAGES_OF_A_RUN = 11
"""Of two iterations."""
DEADLINE = 1800.0


@dataclass(frozen=True)
class Request:
    """A line of the audit log."""

    user: str
    verb: str
    resource: str
    name: str
    time: datetime
    status: int


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="writes,latency,idle")
    parser.add_argument("--active", type=int, default=100)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--idle-seconds", type=float, default=600.0)
    parser.add_argument("--stage-seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    cluster = connect()
    for part in arguments.parts.split(","):
        match part:
            case "writes":
                with lab(cluster, 1.0) as place:
                    writes(place, 20)
            case "latency":
                with lab(cluster, arguments.stage_seconds) as place:
                    latency(place, arguments.active, arguments.stage_seconds)
            case "idle":
                with lab(cluster, 0.5) as place:
                    idle(place, arguments.idle, arguments.idle_seconds)


@contextmanager
def lab(cluster: Cluster, seconds: float) -> Iterator[OperatorLab]:
    """A namespace, a stub kubelet, and the operator's account."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster.namespace() as namespace,
        StubKubelet(cluster.kubeconfig, seconds=seconds) as kubelet,
    ):
        place = OperatorLab(cluster, namespace, Path(folder), kubelet)
        place.install()
        yield place


def writes(place: OperatorLab, runs: int) -> None:
    """Writes for each stage, with the settings that users get."""
    with place.operator(status_seconds=10, retry_seconds=15):
        for number in range(runs):
            place.apply_run(f"run-{number}", iterations=2)
        for number in range(runs):
            place.wait_until_complete(f"run-{number}", DEADLINE)
    counted = Counter(request.verb + " " + request.resource for request in of_operator(place) if request.verb in WRITES)
    counted.pop("update leases", None)
    stages = runs * STAGES_OF_A_RUN
    events, reviews = counted.pop("create events", 0), counted.pop("create tokenreviews", 0)
    print(
        f"writes: {runs} runs, {stages} stages: {sum(counted.values()) / stages:.2f} per stage, without Events", end=""
    )
    print(f" ({events / stages:.2f}) and TokenReviews ({reviews / stages:.2f}); {dict(counted)}", flush=True)


def latency(place: OperatorLab, runs: int, seconds: float) -> None:
    """From a Job's end to the next Job, with many runs at once."""
    with place.operator(status_seconds=10, retry_seconds=15) as operator:
        manifests = []
        for number in range(runs):
            manifests.append(place.manifest(f"run-{number}", iterations=2))
        for start in range(0, runs, 10):
            place.apply(*manifests[start : start + 10])
            time.sleep(seconds * 10 / runs)
        began = time.monotonic()
        for number in range(runs):
            place.wait_until_complete(f"run-{number}", DEADLINE)
        took = time.monotonic() - began
        memory, cpu = usage(operator)
    waits = waiting_times(place)
    high = statistics.quantiles(waits, n=100)
    print(
        f"latency: {runs} active runs, stages of {seconds:.0f} s, {len(waits)} transitions in {took:.0f} s: "
        f"p50 {statistics.median(waits) * 1000:.0f} ms, p99 {high[98] * 1000:.0f} ms, most {max(waits) * 1000:.0f} ms; "
        f"operator: {memory:.0f} MiB, {1000 * cpu / (runs * STAGES_OF_A_RUN):.0f} ms of processor time per stage",
        flush=True,
    )


def waiting_times(place: OperatorLab) -> list[float]:
    """Seconds between the Job controller's last word on a Job and the creation of the next one of its run."""
    ends: dict[str, datetime] = {}
    created: dict[str, list[Request]] = defaultdict(list)
    for request in requests(place):
        if request.resource == "jobs/status" and request.user.endswith(":job-controller") and request.status < 300:
            ends[request.name] = request.time
        elif request.resource == "jobs" and request.verb == "create" and request.status == 201:
            created[run_of(request.name)].append(request)
    waits = []
    for jobs in created.values():
        stages = [job for job in sorted(jobs, key=lambda job: job.time) if "-prune-" not in job.name]
        waits += [(after.time - ends[before.name]).total_seconds() for before, after in itertools.pairwise(stages)]
    return waits


def run_of(job: str) -> str:
    """`run-7` of `run-7-i1-judge-a1`."""
    return "-".join(job.split("-")[:2])


def idle(place: OperatorLab, runs: int, seconds: float) -> None:
    """Runs that have ended: what they cost when nothing happens, and memory as they become more."""
    with place.operator() as operator:
        place.apply_run("model", iterations=2)
        status = place.wait_until_complete("model", DEADLINE)
        sizes = [usage(operator)[0]]
    steps = [runs // 10, runs]
    made = 0
    for step in steps:
        asyncio.run(make_ended(place, range(made, step), status))
        made = step
        with place.operator(status_seconds=10, retry_seconds=15, resync_seconds=60) as operator:
            began = datetime.now().astimezone()
            time.sleep(30 if step < runs else seconds)
            memory, cpu = usage(operator)
            sizes.append(memory)
        changed = [request for request in of_operator(place) if request.verb in WRITES and request.time > began]
        print(
            f"idle: {step} runs that have ended, {30 if step < runs else seconds:.0f} s: {len(changed)} writes, "
            f"{memory:.0f} MiB ({sizes[0]:.0f} MiB with one run), {cpu:.1f} s of processor time with the start",
            flush=True,
        )


async def make_ended(place: OperatorLab, numbers: Iterable[int], status: Object) -> None:
    """Runs with the status of one that has really ended."""
    settings = Configuration()
    await config.load_kube_config(str(place.cluster.kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
    client = ApiClient(settings)
    api = ApiTransport(client, lambda *_: None)
    path = f"/apis/selftaught.dev/v1alpha1/namespaces/{place.namespace}/selftaughtruns"
    for number in numbers:
        body = place.manifest(f"ended-{number}", iterations=2)
        created = await api.request("POST", path, body=body)
        await api.request("PUT", f"{path}/ended-{number}/status", body=created | {"status": status})
    await client.close()  # type: ignore[no-untyped-call]


def usage(operator: OperatorProcess) -> tuple[float, float]:
    """MiB resident, and seconds of processor time so far."""
    process = Path("/proc") / str(operator.process.pid)
    resident = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return int(resident.split()[1]) / 1024, (int(fields[11]) + int(fields[12])) / 100


def of_operator(place: OperatorLab) -> list[Request]:
    """Requests of the operator's account."""
    user = f"system:serviceaccount:{place.namespace}:selftaught-operator"
    return [request for request in requests(place) if request.user == user]


def requests(place: OperatorLab) -> Iterator[Request]:
    """Requests about the namespace, oldest first."""
    with place.cluster.audit_log.open(encoding="utf-8") as lines:
        for line in lines:
            if place.namespace not in line or '"stage":"ResponseComplete"' not in line:
                continue
            entry = json.loads(line)
            about = entry.get("objectRef", {})
            sub = f"/{about['subresource']}" if about.get("subresource") else ""
            yield Request(
                user=entry["user"]["username"],
                verb=entry["verb"],
                resource=about.get("resource", "") + sub,
                name=about.get("name", ""),
                time=datetime.fromisoformat(entry["stageTimestamp"]),
                status=int(entry["responseStatus"]["code"]),
            )


if __name__ == "__main__":
    main()
