"""What is made of the API server's answers."""

import pytest

from selftaught_operator.transport import resource_of, told_by

STATUS = '{"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "message": "jobs \\"x\\" already exists"}'


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        pytest.param(STATUS, "AlreadyExists", 'jobs "x" already exists', id="a Status"),
        pytest.param(STATUS.encode(), "AlreadyExists", 'jobs "x" already exists', id="as bytes"),
        pytest.param('{"message": "no"}', "Conflict", "no", id="a Status without a reason"),
        pytest.param('{"code": 500}', "Conflict", "", id="another object"),
        pytest.param("[1]", "Conflict", "[1]", id="JSON that is no object"),
        pytest.param("<html>Bad Gateway</html>", "Conflict", "<html>Bad Gateway</html>", id="a proxy's page"),
        pytest.param("x" * 1000, "Conflict", "x" * 300, id="a long one is cut"),
        pytest.param(b"\xff\xfe", "Conflict", "\ufffd\ufffd", id="not UTF-8"),
        pytest.param("", "Conflict", "", id="nothing"),
        pytest.param(None, "Conflict", "", id="none"),
    ],
)
def test_what_an_error_says(body: str | bytes | None, reason: str, message: str) -> None:
    assert told_by(body, "Conflict") == (reason, message)


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/lab/pods/demo-0", "pods"),
        ("/api/v1/namespaces/lab/events", "events"),
        ("/api/v1/namespaces/lab", "namespaces"),
        ("/apis/batch/v1/namespaces/lab/jobs/demo-i1-judge-a1", "jobs"),
        ("/apis/selftaught.dev/v1alpha1/selftaughtruns", "selftaughtruns"),
        ("/apis/selftaught.dev/v1alpha1/namespaces/lab/selftaughtruns/demo/status", "selftaughtruns/status"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", "tokenreviews"),
        ("/apis/coordination.k8s.io/v1/namespaces/selftaught-system/leases/selftaught-operator", "leases"),
        ("/apis/kueue.x-k8s.io/v1beta1/namespaces/lab/workloads", "workloads"),
    ],
)
def test_a_path_is_counted_by_its_resource_never_by_a_name(path: str, resource: str) -> None:
    assert resource_of(path) == resource
