"""The operator's own certificate authority, and the certificate of the server that pods tell their progress to.

Both live in memory and die with the process: pods read the authority's certificate from a ConfigMap that the operator
keeps up to date.
"""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
RENEWAL_AGE = SERVER_LIFE * 2 / 3
"""How old a server certificate gets."""
CLOCK_SKEW = timedelta(hours=1)
"""How far behind a pod's clock may be."""
LONGEST_SLEEP = timedelta(hours=1)
"""The loop looks at the clock this often: clocks are set, machines are suspended."""


class Certificate:
    """A server certificate that renews itself, and the context that serves it.

    Renewing changes `context` in place: connections made from then on get the new certificate, others are unharmed.
    """

    def __init__(
        self,
        dns_names: Sequence[str],
        addresses: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._names = [
            *(x509.DNSName(name) for name in dns_names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        self._now = now
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca = self._self_signed()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.renew()

    @property
    def ca_pem(self) -> str:
        """The authority's certificate, for those who connect."""
        return self._ca.public_bytes(Encoding.PEM).decode("ascii")

    @property
    def serial(self) -> int:
        """Serial number of the certificate that is served."""
        return self._server.serial_number

    @property
    def renewal_time(self) -> datetime:
        """When the server certificate is to be renewed."""
        return self._issued + RENEWAL_AGE

    def renew(self) -> None:
        """Serve a new certificate, with a new key."""
        self._issued = self._now()
        key = ec.generate_private_key(ec.SECP256R1())
        self._server = self._issue(key.public_key(), self._issued)
        pem = self._server.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        _load(self.context, pem)

    async def keep_fresh(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Renew whenever it is time. Runs until cancelled."""
        while True:
            left = self.renewal_time - self._now()
            if left <= timedelta(0):
                self.renew()
            else:
                await sleep(min(left, LONGEST_SLEEP).total_seconds())

    def _self_signed(self) -> x509.Certificate:
        now = self._now()
        public = self._ca_key.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "selftaught progress CA")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._ca_key, hashes.SHA256())
        )

    def _issue(self, public: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "selftaught progress")]))
            .issuer_name(self._ca.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(min(now + SERVER_LIFE, self._ca.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(self._names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
            .sign(self._ca_key, hashes.SHA256())
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Chain and key into a context. OpenSSL's interface wants a file; this one is never on a disk."""
    descriptor = os.memfd_create("selftaught-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
