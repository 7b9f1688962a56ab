"""The rules of Pod Security's level `restricted`, as far as fields of a pod can break them.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = ("RuntimeDefault", "Localhost")
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"}


def violations(spec: Object) -> list[str]:
    """What a pod's spec breaks."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if spec.get(name)]
    pod = spec.get("securityContext", {})
    found += [f"sysctl {each['name']}" for each in pod.get("sysctls", []) if each["name"] not in SYSCTLS]
    for volume in spec.get("volumes", []):
        found += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found += [f"{container['name']}: {problem}" for problem in of_container(container, pod)]
    return found


def of_container(container: Object, pod: Object) -> Iterator[str]:
    """What a container breaks, given the pod's security context."""
    own = container.get("securityContext", {})
    both = pod | own
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if both.get("runAsUser") == 0:
        yield "runAsUser"
    if both.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if both.get("seLinuxOptions", {}).keys() & {"user", "role"}:
        yield "seLinuxOptions"
    if both.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "appArmorProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
