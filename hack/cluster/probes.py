"""Is it up yet? Each answers within a second and never raises."""

import http.client
import socket
import ssl
import urllib.error
import urllib.request

from hack.cluster.layout import API_PORT, NODE_ADDRESS, Layout

TIMEOUT = 1.0


def http_ok(url: str) -> bool:
    """An answer of 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT):
            return True
    except (OSError, http.client.HTTPException):
        return False


def port_open(address: str, port: int) -> bool:
    """Somebody listens there."""
    try:
        with socket.create_connection((address, port), timeout=TIMEOUT):
            return True
    except OSError:
        return False


def tls(place: Layout, user: str) -> ssl.SSLContext:
    """For requests to the API server as this user."""
    pki = place.certificates
    context = ssl.create_default_context(cafile=pki / "cluster.crt")
    context.load_cert_chain(pki / f"user-{user}.crt", pki / f"user-{user}.key")
    return context


def api_ready(place: Layout) -> bool:
    """The API server says that it is."""
    connection = http.client.HTTPSConnection(NODE_ADDRESS, API_PORT, timeout=TIMEOUT, context=tls(place, "admin"))
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
