"""What the watches have seen, as the reconciler and the progress server ask for it."""

from builders import at
from kube_objects import JOB, a_job, a_pod, labels, running
from selftaught.api.labels import STAGE_LABEL
from selftaught_operator.facts import PodFacts
from selftaught_operator.observe import Children
from selftaught_operator.progress import PodIdentity
from selftaught_operator.reports import AttemptPod, ProgressBoard, Report
from selftaught_operator.views import Views

KEY = ("lab", "demo")
OTHER = "demo-i1-judge-a2"


def a_view(*pods: PodFacts, jobs: tuple[str, ...] = (JOB,)) -> Views:
    return Views(
        ProgressBoard(),
        jobs={KEY: {a_job(name=name) for name in jobs}},
        pods={KEY: set(pods)},
        names={("lab", pod.name): [(KEY, pod)] for pod in pods},
    )


def test_children_come_in_order() -> None:
    pods = [a_pod(running(), name=name) for name in ("c", "a", "b")]
    children = a_view(*pods, jobs=(OTHER, JOB)).children("lab", "demo")
    assert [job.name for job in children.jobs] == [JOB, OTHER]
    assert [pod.name for pod in children.pods] == ["a", "b", "c"]


def test_a_run_without_children_has_none() -> None:
    view = a_view(a_pod(running()))
    assert view.children("lab", "other") == view.children("shop", "demo") == Children()


def identity(pod: PodFacts, namespace: str = "lab", uid: str | None = None) -> PodIdentity:
    return PodIdentity(namespace, pod.name, uid or pod.uid)


def test_a_token_leads_to_the_attempt_of_its_pod() -> None:
    pod = a_pod(running(), index=2)
    assert a_view(pod).owner_of(identity(pod)) == AttemptPod("lab", "demo", JOB, 2)


def test_other_pods_belong_to_no_run() -> None:
    pod = a_pod(running())
    cleaner = a_pod(running(), name="cleaner", pod_labels=labels(**{STAGE_LABEL: None}))
    view = a_view(pod, cleaner)
    assert view.owner_of(identity(pod, uid="another")) is None, "another pod that had the name before"
    assert view.owner_of(identity(pod, namespace="shop")) is None
    assert view.owner_of(identity(cleaner)) is None, "it is no stage"


def test_progress_of_jobs_that_are_gone_is_forgotten() -> None:
    view = a_view()
    view.jobs = {**view.jobs, ("shop", "demo"): {a_job(name=OTHER)}}
    for namespace, job in (("lab", JOB), ("lab", OTHER), ("shop", OTHER)):
        view.board.take(AttemptPod(namespace, "demo", job, 0), "uid", Report(fraction=0.5), at(0))
    view.forget_progress("lab")
    assert view.progress("lab", JOB, 1) is not None
    assert view.progress("lab", OTHER, 1) is None
    assert view.progress("shop", OTHER, 1) is not None
