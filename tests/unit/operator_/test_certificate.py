"""The server's certificate: who trusts it, what it says, and that it renews itself in place."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from selftaught_operator.certificate import LONGEST_SLEEP, Certificate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def handshake(server: ssl.SSLContext, ca_pem: str, name: str, *, strict: bool = False) -> x509.Certificate:
    """Connect in memory; the certificate that was served. Raises SSLError if the client does not trust it."""
    client = ssl.create_default_context(cadata=ca_pem)
    if strict:  # the default from Python 3.13 on
        client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    served = here.getpeercert(binary_form=True)
    assert served is not None
    return x509.load_der_x509_certificate(served)


def certificate(now: datetime | None = None) -> Certificate:
    return Certificate(
        ["selftaught.selftaught.svc", "localhost"],
        ["127.0.0.1", "fd00::1"],
        lambda: datetime.now(UTC) if now is None else now,
    )


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["selftaught.selftaught.svc", "localhost", "127.0.0.1", "fd00::1"])
def test_who_has_the_authority_trusts_the_server(name: str, strict: bool) -> None:
    ours = certificate()
    assert handshake(ours.context, ours.ca_pem, name, strict=strict).serial_number == ours.serial


@pytest.mark.parametrize(
    ("authority", "name"),
    [pytest.param("own", "elsewhere", id="other-name"), pytest.param("other", "localhost", id="other-authority")],
)
def test_nobody_else_is_trusted(authority: str, name: str) -> None:
    ours = certificate()
    pem = ours.ca_pem if authority == "own" else certificate().ca_pem
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours.context, pem, name)


def test_lives() -> None:
    ours = certificate(NOW)
    authority = x509.load_pem_x509_certificate(ours.ca_pem.encode())
    served = handshake_at(ours)
    assert authority.not_valid_after_utc == NOW + timedelta(days=3650)
    assert served.not_valid_after_utc == NOW + timedelta(days=90)
    assert authority.not_valid_before_utc < NOW  # for clocks that are behind
    assert served.not_valid_before_utc < NOW
    assert ours.renewal_time == NOW + timedelta(days=60)


def handshake_at(ours: Certificate) -> x509.Certificate:
    """The certificate that is served, whatever the date."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server)
    there = ours.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return x509.load_der_x509_certificate(here.getpeercert(binary_form=True) or b"")


def test_only_tls_1_3_is_spoken() -> None:
    ours = certificate()
    client = ssl.create_default_context(cadata=ours.ca_pem)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    there = ours.context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        here.do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        there.do_handshake()


def test_renewing_keeps_authority_and_context() -> None:
    ours = certificate()
    context, pem, serial = ours.context, ours.ca_pem, ours.serial
    ours.renew()
    assert (ours.context, ours.ca_pem) == (context, pem)
    assert handshake(context, pem, "localhost").serial_number == ours.serial != serial


def test_it_renews_itself_after_two_thirds_of_its_life() -> None:
    time = NOW
    ours = Certificate(["localhost"], now=lambda: time)
    changes: list[timedelta] = []
    serial = ours.serial

    class EnoughError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal time, serial
        assert 0 < seconds <= LONGEST_SLEEP.total_seconds()
        if ours.serial != serial:
            serial = ours.serial
            changes.append(time - NOW)
            assert handshake_at(ours).serial_number == serial
        time += timedelta(seconds=seconds)
        if time > NOW + timedelta(days=200):
            raise EnoughError

    with pytest.raises(EnoughError):
        asyncio.run(ours.keep_fresh(sleep))
    assert changes == [timedelta(days=60), timedelta(days=120), timedelta(days=180)]


def test_a_clock_that_jumps_is_noticed_within_the_hour() -> None:
    time = NOW
    ours = Certificate(["localhost"], now=lambda: time)
    serial = ours.serial
    sleeps = 0

    class EnoughError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal time, sleeps
        sleeps += 1
        time += timedelta(days=80)
        if sleeps == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        asyncio.run(ours.keep_fresh(sleep))
    assert ours.serial != serial
