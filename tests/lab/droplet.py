"""Droplets: containers that boot systemd and are reached over SSH."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import socket
import subprocess
import tarfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import settings, trust
from tests.lab.engine import LabError, docker, ensure_network, exclusive, inspect, stage
from tests.lab.image import ensure_image

BOOT_TIMEOUT = 90
KEYS = f"{settings.LABEL}.keys"

# All that a root process has by default on a machine, but SYS_RESOURCE: a controller that is itself confined often
# lacks that one and cannot hand it on, which is also why `--privileged` is not used.
CAPABILITIES = (
    "AUDIT_CONTROL",
    "BLOCK_SUSPEND",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "NET_BROADCAST",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
)


def start(
    name: str,
    image: str,
    address: str = "",
    aliases: Sequence[str] = (),
    package_cache: bool = True,
    disk: Disk | None = None,
) -> str:
    """Start a bare droplet, or leave a running one alone; return its address once it answers SSH."""
    trust.ensure_keys()
    full_image = ensure_image(image)
    ensure_network()
    with stage(f"droplet {name}"):
        found = inspect("container", name)
        if found and found["Config"]["Labels"].get(KEYS) != trust.fingerprint():
            raise LabError(f"{name} was started with keys that are no longer in .lab. Remove it: `make down`")
        if found is None:
            cache = f"shipshape-apt-cache-{full_image.rpartition(':')[2]}" if package_cache else ""
            # Two that start together must not choose the same address.
            with exclusive("address"):
                create(name, full_image, address=address or free_address(name), aliases=aliases, cache=cache, disk=disk)
            put(name, first_boot_files())
            docker("start", name)
            forget_host_key(address_of(name))
        docker("start", name)
        wait_for_boot(name)
    return address_of(name)


def free_address(name: str) -> str:
    """An address of the lab's upper half that no droplet holds, running or not.

    Docker would give the address of a droplet that is just restarting to another one that starts at that moment.
    """
    names = docker("ps", "--all", "--quiet", f"--filter=network={settings.NETWORK}").split()
    template = "{{with index .NetworkSettings.Networks %s}}{{if .IPAMConfig}}{{.IPAMConfig.IPv4Address}}{{end}}{{end}}"
    held = (
        set(docker("inspect", f"--format={template % json.dumps(settings.NETWORK)}", *names).split())
        if names
        else set()
    )
    upper_half = [str(address) for address in ipaddress.ip_network(settings.DYNAMIC_RANGE).hosts()][:-1]
    start_at = zlib.crc32(name.encode()) % len(upper_half)
    return next(address for address in upper_half[start_at:] + upper_half[:start_at] if address not in held)


@dataclass(frozen=True)
class Disk:
    """What the droplet's disk takes in a second; without one it is as quick as this machine's."""

    operations: int
    megabytes: int

    @property
    def arguments(self) -> list[str]:
        device = _device_of(docker("info", "--format={{.DockerRootDir}}").strip())
        return [
            *(f"--device-{way}-iops={device}:{self.operations}" for way in ("read", "write")),
            *(f"--device-{way}-bps={device}:{self.megabytes}mb" for way in ("read", "write")),
        ]


def _device_of(path: str) -> str:
    """The whole disk: a limit cannot be given to a part of one."""
    number = os.stat(path).st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not place.exists():
        raise LabError(f"{path} is on no disk whose speed could be limited: see findmnt -T {path}")
    real = place.resolve()
    return f"/dev/{(real.parent if (real / 'partition').exists() else real).name}"


def create(
    name: str,
    image: str,
    *,
    address: str,
    aliases: Sequence[str],
    cache: str = "",
    labels: Mapping[str, str] | None = None,
    disk: Disk | None = None,
) -> None:
    """A stopped container of the given image, with everything systemd needs to boot in it."""
    arguments = [
        f"--name={name}",
        f"--hostname={name}",
        f"--label={settings.LABEL}",
        f"--label={KEYS}={trust.fingerprint()}",
        *(f"--label={label}={value}" for label, value in (labels or {}).items()),
        f"--network={settings.NETWORK}",
        *([f"--ip={address}"] if address else []),
        *(f"--network-alias={alias}" for alias in aliases),
        *(f"--cap-add={capability}" for capability in CAPABILITIES),
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--cgroupns=private",
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        # Volumes, so that Docker inside the droplet can use its overlay driver.
        "--volume=/var/lib/docker",
        "--volume=/var/lib/containerd",
    ]
    if cache:
        docker("volume", "create", f"--label={settings.LABEL}", cache)
        arguments.append(f"--volume={cache}:/var/cache/lab/archives")
    docker("create", *arguments, *(disk.arguments if disk else ()), image)


def put(name: str, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Write root's files into a container, running or not: path without the leading slash -> content and mode."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    docker("cp", "-", f"{name}:/", stdin=archive.getvalue())


def first_boot_files() -> dict[str, tuple[bytes, int]]:
    files = {
        f"usr/local/share/ca-certificates/{file}": (content, 0o644) for file, content in trust.authorities().items()
    }
    files["root/.ssh/authorized_keys"] = (trust.public_ssh_key().encode(), 0o600)
    return files


def set_umask(name: str, umask: str) -> None:
    """Of every login over SSH from now on."""
    line = f"session required pam_umask.so umask={umask}"
    docker("exec", name, "sh", "-euc", f"echo '{line}' >>/etc/pam.d/sshd")


def address_of(name: str) -> str:
    details = inspect("container", name)
    if details is None:
        raise LabError(f"there is no droplet called {name}: start it with `python -m tests.lab droplet {name}`")
    address: str = details["NetworkSettings"]["Networks"].get(settings.NETWORK, {}).get("IPAddress", "")
    if not address:
        raise LabError(f"{name} is not running on the network {settings.NETWORK}: see `docker logs {name}`")
    return address


def wait_for_boot(name: str) -> None:
    """Until systemd has settled and SSH answers. A unit that failed to start is an error: a droplet has none."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    state = ""
    while time.monotonic() < deadline:
        state = docker("exec", name, "systemctl", "is-system-running", check=False)
        if state == "running" and _answers_ssh(address_of(name), _ssh_port(name)):
            return
        if state == "degraded":
            break
        time.sleep(0.3)
    failed = docker("exec", name, "systemctl", "--failed", "--no-legend", "--plain", check=False)
    raise LabError(f"{name} did not come up within {BOOT_TIMEOUT} s (systemd: {state or 'no answer'}).\n{failed}")


def _ssh_port(name: str) -> int:
    """The port sshd listens on by its own account: a role may have moved it before a reboot."""
    # Where a socket starts sshd, as on Ubuntu 24.04, it cannot tell before its first connection.
    in_force = docker("exec", name, "sshd", "-T", check=False).splitlines()
    return next((int(line.split()[1]) for line in in_force if line.startswith("port ")), 22)


def _answers_ssh(address: str, port: int) -> bool:
    """The greeting is enough: who may log in is not the lab's business."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def reboot(name: str) -> None:
    address_of(name)
    with stage(f"reboot {name}"):
        docker("restart", "--time=20", name)
        wait_for_boot(name)


def remove(name: str) -> None:
    if inspect("container", name):
        docker("rm", "--force", "--volumes", name)


def forget_host_key(address: str) -> None:
    """A new droplet at an old address has a new key. Only that entry goes: any other changed key still stops a run."""
    if settings.KNOWN_HOSTS.exists():
        command = ["ssh-keygen", "-q", "-R", address, "-f", str(settings.KNOWN_HOSTS)]
        subprocess.run(command, check=True, capture_output=True)
