"""Writes the configuration of the cluster's programs from the templates in `config/`."""

import base64
import datetime
from pathlib import Path
from string import Template

from hack.cluster import certificates, layout
from hack.cluster.layout import Layout

TEMPLATES = Path(__file__).resolve().parent / "config"
PAUSE_IMAGE = "localhost/selftaught/pause:dev"
PROVISIONER = "selftaught.dev/host-path"

NODE_GROUP = "system:nodes"
MASTERS = "system:masters"
USERS = {
    "admin": ("admin", MASTERS),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{layout.NODE_NAME}", NODE_GROUP),
    "coredns": ("coredns", MASTERS),
    "volumes": ("volumes", MASTERS),
}
"""Each with a kubeconfig of its own, so that the audit log tells them apart: name, then group."""

KUBECONFIG = Template(
    """\
apiVersion: v1
kind: Config
current-context: selftaught
clusters:
  - name: selftaught
    cluster: {server: "$server", certificate-authority-data: $authority}
users:
  - name: $user
    user: {client-certificate-data: $certificate, client-key-data: $key}
contexts:
  - name: selftaught
    context: {cluster: selftaught, user: $user}
"""
)


def write_certificates(place: Layout, now: datetime.datetime) -> None:
    """Everything that proves who is who, and a kubeconfig per user."""
    folder = place.certificates
    folder.mkdir(mode=0o700)
    cluster = certificates.authority(folder, "cluster", now)
    front = certificates.authority(folder, "front-proxy", now)
    certificates.signing_key(folder, "service-accounts")
    certificates.issue(
        cluster,
        folder,
        "kube-apiserver",
        now,
        common_name="kube-apiserver",
        hosts=(
            layout.NODE_ADDRESS,
            layout.API_SERVICE_ADDRESS,
            "127.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{layout.DOMAIN}",
        ),
    )
    certificates.issue(
        cluster, folder, "kubelet", now, common_name="kubelet", hosts=(layout.NODE_ADDRESS, layout.NODE_NAME)
    )
    certificates.issue(cluster, folder, "kubelet-client", now, common_name="kube-apiserver-kubelet-client")
    certificates.issue(front, folder, "front-proxy-client", now, common_name="front-proxy-client")
    for user, (common_name, group) in USERS.items():
        certificates.issue(
            cluster, folder, f"user-{user}", now, common_name=common_name, groups=(group,) if group else ()
        )
        target = place.kubeconfig if user == "admin" else place.kubeconfig_of(user)
        target.touch(mode=0o600)
        target.write_text(
            KUBECONFIG.substitute(
                server=layout.API_URL,
                user=user,
                authority=_encoded(folder / "cluster.crt"),
                certificate=_encoded(folder / f"user-{user}.crt"),
                key=_encoded(folder / f"user-{user}.key"),
            ),
            encoding="utf-8",
        )


def write_configs(place: Layout) -> None:
    """Render every template into `.cluster/etc`."""
    values = {
        "etc": str(place.configs),
        "pki": str(place.certificates),
        "cgroup": layout.CGROUP,
        "domain": layout.DOMAIN,
        "node_name": layout.NODE_NAME,
        "node_address": layout.NODE_ADDRESS,
        "pod_network": layout.POD_NETWORK,
        "pause_image": PAUSE_IMAGE,
        "provisioner": PROVISIONER,
    }
    cni = place.configs / "cni"
    cni.mkdir()
    for template in sorted(TEMPLATES.iterdir()):
        target = (cni if template.suffix == ".conflist" else place.configs) / template.name
        target.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
