"""Debian packages that the cluster's node needs."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hack.cluster.errors import ClusterError

NEEDED = {
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/nft": "nftables",
    "/sbin/ip": "iproute2",
    "/usr/bin/nsenter": "util-linux",
}
"""A file of each package, and the package."""


def install(say: Callable[[str], None]) -> None:
    """Install the packages whose files are absent.

    Raises:
        ClusterError: apt is absent or failed.

    """
    missing = [package for file, package in NEEDED.items() if not Path(file).exists()]
    if not missing:
        return
    by_hand = f"install them by hand: {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise ClusterError(f"this is no Debian, and packages are missing; {by_hand}")
    say(f"installing {', '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ClusterError(f"`{' '.join(command)}` failed: {last}; {by_hand}")
