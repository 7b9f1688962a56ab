"""The test cluster is what the operator's tests take it for."""

import json
import socket
import subprocess
import time
import urllib.request
from textwrap import indent

import pytest

from real_cluster import ROOT, Cluster, KubectlError

CONTAINER = """\
image: selftaught/worker:dev
imagePullPolicy: IfNotPresent
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
"""
POD = """\
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 1
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
"""


def pod_spec(command: list[str], container: str = "", pod: str = "", volumes: str = "", mounts: str = "") -> str:
    """YAML of a restricted pod's spec with one container; the other arguments are further lines of it."""
    fields = indent(container + CONTAINER + mounts, "    ")
    return (
        f"{POD}{pod}volumes:\n  - {{name: tmp, emptyDir: {{}}}}\n{volumes}"
        f"containers:\n  - name: main\n    command: {json.dumps(command)}\n{fields}"
    )


def pod(name: str, spec: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n{indent(spec, '  ')}"
    )


def field(cluster: Cluster, namespace: str, what: str, path: str) -> str:
    return cluster.kubectl("get", f"--namespace={namespace}", what, f"--output=jsonpath={{{path}}}")


def run(cluster: Cluster, namespace: str, name: str, manifest: str, seconds: float = 30) -> str:
    """Apply a pod, wait for its end, and return its log."""
    cluster.apply(namespace, manifest)
    ended = {"Succeeded", "Failed"}
    cluster.wait(
        lambda: field(cluster, namespace, f"pod/{name}", ".status.phase") in ended, seconds, f"pod {name} ends"
    )
    return cluster.kubectl("logs", f"--namespace={namespace}", name)


def test_a_second_start_changes_nothing_and_takes_a_moment(cluster: Cluster) -> None:
    before = cluster.kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}")
    start = time.monotonic()
    subprocess.run(["make", "--silent", "cluster"], cwd=ROOT, check=True)
    assert time.monotonic() - start < 10
    assert cluster.kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}") == before


def test_the_program_runs_as_nobody_in_particular(cluster: Cluster, namespace: str) -> None:
    script = "import os; from selftaught import cli; print(os.getuid(), os.access('/', os.W_OK), os.listdir('/tmp'))"
    log = run(cluster, namespace, "who", pod("who", pod_spec(["python", "-c", script])))
    assert log == "10001 False []\n"
    assert run(cluster, namespace, "help", pod("help", pod_spec(["selftaught", "--help"]))).strip()


def test_pod_security_refuses_a_root_pod(cluster: Cluster, namespace: str) -> None:
    root = pod("root", pod_spec(["true"]).replace("runAsNonRoot: true", "runAsNonRoot: false"))
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.apply(namespace, root)


def test_an_indexed_job_finds_its_peers_by_name(cluster: Cluster, namespace: str) -> None:
    script = (
        "import socket, time\n"
        "deadline = time.monotonic() + 30\n"
        "while True:\n"
        "    try:\n"
        "        print(socket.gethostbyname('peers-0.peers'), socket.gethostbyname('peers-1.peers')); break\n"
        "    except OSError:\n"
        "        assert time.monotonic() < deadline; time.sleep(0.2)\n"
        "time.sleep(5)\n"
    )
    spec = pod_spec(["python", "-c", script], pod="subdomain: peers\n")
    cluster.apply(
        namespace,
        "apiVersion: v1\nkind: Service\nmetadata: {name: peers}\n"
        "spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {batch.kubernetes.io/job-name: peers}}\n"
        "---\n"
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: peers}\n"
        "spec:\n  completionMode: Indexed\n  completions: 2\n  parallelism: 2\n  backoffLimitPerIndex: 0\n"
        f"  template:\n    spec:\n{indent(spec, '      ')}",
    )
    cluster.kubectl("wait", f"--namespace={namespace}", "job/peers", "--for=condition=Complete", "--timeout=90s")
    logs = cluster.kubectl("logs", f"--namespace={namespace}", "--selector=batch.kubernetes.io/job-name=peers")
    first, second = logs.splitlines()
    assert first == second
    assert len(set(first.split())) == 2


def test_a_service_reaches_its_pod_from_the_host_too(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        namespace,
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n---\n"
        + pod("web", pod_spec(["python", "-m", "http.server", "8080", "--directory", "/tmp"])),
    )
    cluster.kubectl("wait", f"--namespace={namespace}", "pod/web", "--for=condition=Ready", "--timeout=30s")
    fetch = "import urllib.request; print(urllib.request.urlopen('http://web', timeout=20).status)"
    assert run(cluster, namespace, "client", pod("client", pod_spec(["python", "-c", fetch]))) == "200\n"
    if cluster.ours:
        address = field(cluster, namespace, "service/web", ".spec.clusterIP")
        with urllib.request.urlopen(f"http://{address}", timeout=5) as answer:
            assert answer.status == 200


def test_a_pod_reaches_the_host(cluster: Cluster, namespace: str) -> None:
    if not cluster.ours:
        return
    with socket.create_server(("", 0)) as server:
        server.settimeout(60)
        target = (cluster.host_address, server.getsockname()[1])
        script = f"import socket; socket.create_connection({target}, timeout=20).sendall(b'hello')"
        run(cluster, namespace, "caller", pod("caller", pod_spec(["python", "-c", script])))
        connection, _ = server.accept()
        with connection:
            assert connection.recv(16) == b"hello"


def test_memory_beyond_the_limit_is_an_oom_kill(cluster: Cluster, namespace: str) -> None:
    limits = "resources: {limits: {memory: 64Mi, cpu: 500m}}\n"
    eat = pod("eat", pod_spec(["python", "-c", "b'x' * 200_000_000"], container=limits))
    run(cluster, namespace, "eat", eat)
    state = ".status.containerStatuses[0].state.terminated"
    assert field(cluster, namespace, "pod/eat", f"{state}.reason") == "OOMKilled"
    assert field(cluster, namespace, "pod/eat", f"{state}.exitCode") == "137"


def test_a_missing_image_is_reported_at_once(cluster: Cluster, namespace: str) -> None:
    spec = pod_spec(["true"]).replace("selftaught/worker:dev", "selftaught/nowhere:1")
    cluster.apply(namespace, pod("nowhere", spec))
    reason = ".status.containerStatuses[0].state.waiting.reason"
    cluster.wait(
        lambda: field(cluster, namespace, "pod/nowhere", reason) in {"ErrImagePull", "ImagePullBackOff"},
        20,
        "the image's absence is reported",
    )


def test_a_claim_is_bound_and_shared(cluster: Cluster, namespace: str) -> None:
    volumes = "  - {name: shared, persistentVolumeClaim: {claimName: shared}}\n"
    mounts = "  - {name: shared, mountPath: /shared}\n"
    cluster.apply(
        namespace,
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: shared}\n"
        "spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}\n",
    )

    def spec(command: str) -> str:
        return pod_spec(["sh", "-c", command], volumes=volumes, mounts=mounts)

    run(cluster, namespace, "writer", pod("writer", spec("echo written > /shared/file")))
    assert run(cluster, namespace, "reader", pod("reader", spec("cat /shared/file"))) == "written\n"


def test_commands_run_in_a_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, pod("sleeper", pod_spec(["sleep", "600"])))
    cluster.kubectl("wait", f"--namespace={namespace}", "pod/sleeper", "--for=condition=Ready", "--timeout=30s")
    assert cluster.kubectl("exec", f"--namespace={namespace}", "sleeper", "--", "echo", "inside") == "inside\n"


def test_the_audit_log_counts_requests(cluster: Cluster, namespace: str) -> None:
    if not cluster.ours:
        return
    lines = cluster.audit_log.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines if namespace in line]
    assert any(event["verb"] == "create" and event["objectRef"]["resource"] == "namespaces" for event in events)
    assert all(event["userAgent"] and event["user"]["username"] for event in events)
