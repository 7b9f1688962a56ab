"""The cluster's programs: what each is started with, what it waits for, and when it is ready."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import layout, probes
from hack.cluster.layout import Layout


@dataclass(frozen=True)
class Component:
    """A program that the supervisor keeps running."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    needs: tuple[str, ...] = ()


def components(place: Layout) -> tuple[Component, ...]:
    """In the order in which they come up."""
    pki, etc = place.certificates, place.configs

    def program(name: str, *arguments: str) -> tuple[str, ...]:
        return (str(place.bin / name), *arguments)

    return (
        Component(
            "etcd",
            program(
                "etcd",
                "--data-dir=/var/lib/etcd",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
                "--auto-compaction-mode=periodic",
                "--auto-compaction-retention=10m",
                "--quota-backend-bytes=4294967296",
                "--log-level=warn",
            ),
            ready=lambda: probes.http_ok("http://127.0.0.1:2379/health"),
        ),
        Component(
            "containerd",
            program("containerd", f"--config={etc / 'containerd.toml'}"),
            ready=Path("/run/containerd/containerd.sock").exists,
        ),
        Component(
            "kube-apiserver",
            program("kube-apiserver", *_apiserver(place)),
            ready=lambda: probes.api_ready(place),
            needs=("etcd",),
        ),
        Component(
            "kube-controller-manager",
            program(
                "kube-controller-manager",
                f"--kubeconfig={place.kubeconfig_of('kube-controller-manager')}",
                f"--service-account-private-key-file={pki / 'service-accounts.key'}",
                f"--root-ca-file={pki / 'cluster.crt'}",
                f"--cluster-signing-cert-file={pki / 'cluster.crt'}",
                f"--cluster-signing-key-file={pki / 'cluster.key'}",
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                "--concurrent-job-syncs=20",
            ),
            ready=lambda: probes.port_open("127.0.0.1", 10257),
            needs=("kube-apiserver",),
        ),
        Component(
            "kube-scheduler",
            program("kube-scheduler", f"--config={etc / 'kube-scheduler.yaml'}", "--bind-address=127.0.0.1"),
            ready=lambda: probes.port_open("127.0.0.1", 10259),
            needs=("kube-apiserver",),
        ),
        Component(
            "kubelet",
            program(
                "kubelet",
                f"--config={etc / 'kubelet.yaml'}",
                f"--kubeconfig={place.kubeconfig_of('kubelet')}",
                f"--hostname-override={layout.NODE_NAME}",
                f"--node-ip={layout.NODE_ADDRESS}",
            ),
            ready=lambda: probes.port_open("127.0.0.1", 10248),
            needs=("containerd", "kube-apiserver"),
        ),
        Component(
            "kube-proxy",
            program("kube-proxy", f"--config={etc / 'kube-proxy.yaml'}"),
            ready=lambda: probes.port_open("127.0.0.1", 10249),
            needs=("kube-apiserver",),
        ),
        Component(
            "coredns",
            program("coredns", f"-conf={etc / 'Corefile'}"),
            ready=lambda: probes.http_ok("http://127.0.0.1:8181/ready"),
            needs=("kube-apiserver",),
        ),
        Component(
            "volumes",
            (sys.executable, "-m", "hack.cluster", "serve-volumes"),
            ready=lambda: True,
            needs=("kube-apiserver",),
        ),
    )


def _apiserver(place: Layout) -> tuple[str, ...]:
    pki = place.certificates
    return (
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={layout.NODE_ADDRESS}",
        f"--secure-port={layout.API_PORT}",
        f"--service-cluster-ip-range={layout.SERVICE_NETWORK}",
        f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
        f"--client-ca-file={pki / 'cluster.crt'}",
        f"--kubelet-certificate-authority={pki / 'cluster.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki / 'front-proxy.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{layout.DOMAIN}",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--audit-policy-file={place.configs / 'audit-policy.yaml'}",
        f"--audit-log-path={place.audit_log}",
        "--audit-log-maxsize=4096",
        "--shutdown-delay-duration=0s",
    )
