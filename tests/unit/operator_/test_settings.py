"""Settings come from the environment; a mistake names its variable."""

import pytest

from selftaught.errors import ManifestError
from selftaught_operator.settings import read_settings

P = "SELFTAUGHT_OPERATOR_"
IMAGE = {f"{P}IMAGE": "worker:1"}


def test_defaults() -> None:
    settings = read_settings(IMAGE | {"HOME": "/", "SELFTAUGHT_VOLUMES": "/volumes"})
    assert (settings.image, settings.lease_seconds, settings.leader_election) == ("worker:1", 15, True)


def test_values_are_read() -> None:
    environ = IMAGE | {f"{P}LEASE_SECONDS": "30", f"{P}LEADER_ELECTION": "false", f"{P}RESYNC_SECONDS": "1.5"}
    settings = read_settings(environ)
    assert (settings.lease_seconds, settings.leader_election, settings.resync_seconds) == (30, False, 1.5)


def test_an_empty_value_is_the_default() -> None:
    assert read_settings(IMAGE | {f"{P}PROGRESS_PORT": ""}).progress_port == 8443


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        pytest.param({}, f"{P}IMAGE", id="absent"),
        pytest.param(IMAGE | {f"{P}PROGRESS_PORT": "https"}, f"{P}PROGRESS_PORT", id="no number"),
        pytest.param(IMAGE | {f"{P}METRICS_PORT": "70000"}, f"{P}METRICS_PORT", id="no port"),
        pytest.param(IMAGE | {f"{P}LEASE_SECONDS": "2"}, f"{P}LEASE_SECONDS", id="too short"),
        pytest.param(IMAGE | {f"{P}RESYNC_SECONDS": "0"}, f"{P}RESYNC_SECONDS", id="zero"),
        pytest.param(IMAGE | {f"{P}RESINC_SECONDS": "5"}, f"{P}RESINC_SECONDS", id="misspelt"),
        pytest.param(IMAGE | {f"{P}LOG_LEVEL": "loud"}, f"{P}LOG_LEVEL", id="no level"),
        pytest.param(IMAGE | {f"{P}USER_ID": "0"}, f"{P}USER_ID", id="root"),
        pytest.param(IMAGE | {f"{P}LEADER_ELECTION": "perhaps"}, f"{P}LEADER_ELECTION", id="neither true nor false"),
    ],
)
def test_a_mistake_names_its_variable_and_the_next_step(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(ManifestError, match=rf"^{variable}: .*; correct it in the operator's Deployment$"):
        read_settings(environ)


@pytest.mark.parametrize(
    ("variable", "value", "field", "meant"),
    [
        pytest.param("USER_ID", "none", "user_id", None, id="a cluster that chooses users"),
        pytest.param("USER_ID", "1234", "user_id", 1234, id="another user"),
        pytest.param("LOG_LEVEL", "debug", "log_level", "DEBUG", id="a level in small letters"),
    ],
)
def test_words_that_people_write(variable: str, value: str, field: str, meant: object) -> None:
    assert getattr(read_settings(IMAGE | {f"{P}{variable}": value}), field) == meant
