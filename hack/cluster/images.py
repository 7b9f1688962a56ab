"""Container images without content: what a pod runs lies on the host and is mounted read-only into every container.

The Python environment has 7 GB; as an image layer it would be copied twice. Instead the runtime's base specification
adds the mounts (not to a pod's pause container, which therefore brings its program along). They lie at fixed places
below /opt/selftaught, because a pod may mount a volume over the host's own place of the checkout (/tmp).
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from hack.cluster.configs import PAUSE_IMAGE
from hack.cluster.errors import ClusterError
from hack.cluster.layout import Layout

OPT = Path("/opt/selftaught")
USER = 10001
PROJECT_IMAGES = ("docker.io/selftaught/worker:dev", "docker.io/selftaught/operator:dev")
PASSWD = f"root:x:0:0:root:/root:/usr/sbin/nologin\nselftaught:x:{USER}:{USER}:selftaught:/tmp:/usr/sbin/nologin\n"
GROUP = f"root:x:0:\nselftaught:x:{USER}:\n"
FILES = {
    "etc/passwd": PASSWD,
    "etc/group": GROUP,
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FOLDERS = ("usr", "etc", "etc/alternatives", "dev", "proc", "sys", "opt", "opt/selftaught", "opt/selftaught/bin")


def write(place: Layout) -> tuple[Path, ...]:
    """Write an archive per image, for `ctr images import`."""
    place.images.mkdir()
    python = OPT / "venv" / "bin" / "python"
    environment = (
        f"PATH={OPT}/bin:{OPT}/venv/bin:/usr/local/bin:/usr/bin:/bin",
        f"PYTHONPATH={OPT}/src:{OPT}/operator",
        "PYTHONDONTWRITEBYTECODE=1",
        "HOME=/tmp",
    )
    scripts = {f"opt/selftaught/bin/{name}": _script(python, name) for name in _python_scripts(place)}
    programs = {"pause": (place.bin / "pause").read_bytes()}
    pause = _archive(place.images / "pause.tar", PAUSE_IMAGE, programs, ("PATH=/",), ("/pause",))
    return pause, *(
        _archive(place.images / f"{name.split('/')[-1].split(':')[0]}.tar", name, scripts, environment, ("selftaught",))
        for name in PROJECT_IMAGES
    )


def write_base_spec(place: Layout) -> None:
    """Write the runtime specification that every container starts from.

    Raises:
        ClusterError: containerd's client failed.

    """
    made = subprocess.run([place.bin / "ctr", "oci", "spec"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise ClusterError(f"`ctr oci spec` failed: {made.stderr.strip()}")
    spec = json.loads(made.stdout)
    spec["process"].pop("rlimits", None)  # as the machine has them; raising one needs CAP_SYS_RESOURCE
    interpreter = Path(sys.base_prefix)
    mounts = {
        Path("/usr"): Path("/usr"),
        Path("/etc/alternatives"): Path("/etc/alternatives"),
        place.project / ".venv": OPT / "venv",
        place.project / "src": OPT / "src",
        place.project / "operator": OPT / "operator",
    }
    if not interpreter.is_relative_to("/usr"):
        mounts[interpreter] = interpreter
    spec["mounts"] += [
        {
            "source": str(source),
            "destination": str(target),
            "type": "bind",
            "options": ["rbind", "ro", "nosuid", "nodev"],
        }
        for source, target in mounts.items()
    ]
    (place.configs / "container.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")


def _python_scripts(place: Layout) -> list[str]:
    """Programs of the environment whose first line names its interpreter by the host's path."""
    found = []
    for file in sorted((place.project / ".venv" / "bin").iterdir()):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                if opened.read(64).startswith((b"#!/", b"#!\x27")) and file.suffix == "":
                    found.append(file.name)
    return found


def _script(python: Path, name: str) -> bytes:
    return f'#!/bin/sh\nexec {python} {OPT}/venv/bin/{name} "$@"\n'.encode()


def _archive(
    path: Path, name: str, programs: dict[str, bytes], environment: tuple[str, ...], command: tuple[str, ...]
) -> Path:
    """A Docker archive of one image with one layer."""
    layer = _layer(programs)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": environment,
                "Cmd": command,
                "User": str(USER),
                "WorkingDir": "/",
                "Labels": {"title": name},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for member, content in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, member, content)
    return path


def _layer(programs: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        layer.addfile(temporary)
        for link, target in LINKS.items():
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
        for name, text in FILES.items():
            _add(layer, name, text.encode())
        for name, content in programs.items():
            _add(layer, name, content, mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
