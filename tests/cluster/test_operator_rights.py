"""The operator has the rights that it uses, and uses those that it has: as the API server's audit log shows.

That no operator in any test asks for more than it may is checked at the end of each test's namespace (conftest).
"""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.operator_lab import ACCOUNT, RIGHTS, OperatorLab, free_port, words
from selftaught.api.labels import QUEUE_LABEL

UNSEEN = {
    ("discovery.k8s.io", "endpointslices", "create"): "asked for by an apply that creates, which is logged as a patch",
}
"""Rights that leave no trace in the audit log."""


@contextmanager
def may_review_tokens(lab: OperatorLab) -> Iterator[None]:
    """The one right that no role in a namespace can give."""
    name = f"{lab.namespace}-reviews"
    lab.cluster.kubectl("create", "clusterrole", name, "--verb=create", "--resource=tokenreviews")
    try:
        account = f"--serviceaccount={lab.namespace}:{ACCOUNT}"
        lab.cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", account)
        yield
    finally:
        lab.cluster.kubectl("delete", "clusterrolebinding,clusterrole", name)


def tell_progress_with_a_bad_token(port: int) -> int:
    """The status of the answer."""
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}/progress", method="POST", data=b"{}", headers={"Authorization": "Bearer bad"}
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_every_right_is_used_and_no_other(lab: OperatorLab) -> None:
    """One life of an operator in which all happens that it has rights for."""
    if not lab.cluster.ours:
        return
    port = free_port()
    settings = {
        "leader_election": True,
        "resync_seconds": 1,
        "progress_host": "progress.invalid",
        "progress_port": port,
        "pod_ip": "192.0.2.1",
    }
    lab.kubectl("create", "quota", "pods", "--hard=pods=0")
    with may_review_tokens(lab), lab.operator(**settings) as operator:
        queued = lab.manifest("queued")
        queued["metadata"]["labels"] = {QUEUE_LABEL: "nobody"}
        lab.apply(queued)
        lab.apply_run("all", training={"parallelism": {"nodes": 2}}, ttlSecondsAfterFinished=1)
        lab.wait_for("all", lambda status: "quota: pods" in words(status), "Events say why there is no pod")
        lab.wait_for("queued", lambda status: "Kueue" in words(status), "it is looked for Kueue's reason")
        lab.kubectl("delete", "quota", "pods")
        with lab.kubelet.hold(lab.namespace, "all-evaluate-a1"):
            lab.wait_until_at_work("all", "evaluate")
            lab.patch_run("all", {"spec": {"suspend": True}})
            lab.kubectl("wait", "selftaughtruns/all", "--for=condition=Suspended", "--timeout=60s")
        lab.patch_run("all", {"spec": {"suspend": False}})
        lab.wait_until_complete("all")
        lab.wait(lambda: not lab.owned("jobs", "all"), "Jobs of the run are deleted")
        assert tell_progress_with_a_bad_token(port) == 401
        assert operator.stop() == 0, operator.said
    used = {request.right for request in lab.requests()}
    assert used == RIGHTS - UNSEEN.keys()
    assert not [right for right in RIGHTS if "*" in right or right[1].startswith("secrets")]
