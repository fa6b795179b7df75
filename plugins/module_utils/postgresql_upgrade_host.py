"""What a major upgrade of PostgreSQL does on the host: units of its own, private servers, whose turn it is to start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import time
from typing import Iterator, List, Optional

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_plan as plan
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import Cluster, start_mode

LOCK = "/run/shipshape-postgresql-upgrade.lock"
UNIT = "shipshape-postgresql-upgrade"
SOCKETS = "/run/shipshape-postgresql-upgrade"


class Failed(Exception):
    """A step of the upgrade that did not go well; the text is for the operator."""


def systemctl(*words: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode("utf-8", "replace").strip()
    if check and done.returncode != 0:
        raise Failed(f"'systemctl {' '.join(words)}' ended with {done.returncode}: {text}")
    return text


def run(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/"
    )
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise Failed(f"'{' '.join(command)}' ended with {done.returncode}:\n{text}")
    return text


def owned_by_postgres(path: str) -> None:
    account = pwd.getpwnam("postgres")
    os.chown(path, account.pw_uid, account.pw_gid)


def folder_for_postgres(path: str) -> None:
    """Empty, and nobody else's to read."""
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path, 0o700)
    owned_by_postgres(path)


def size_of(directory: str) -> int:
    """Bytes on the disk below it. Files of a live server may go meanwhile."""
    total = 0
    for folder, _folders, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def hours_since(path: str) -> Optional[float]:
    """Since the file was written, which each success of a backup writes anew."""
    try:
        return (time.time() - os.stat(path).st_mtime) / 3600
    except FileNotFoundError:
        return None


def clones(directory: str) -> bool:
    """Whether the file system copies a file by sharing its blocks until one of the two is written."""
    source, target = f"{directory}/.shipshape-clone", f"{directory}/.shipshape-clone-2"
    try:
        with open(source, "wb") as handle:
            handle.write(b"\0" * 65536)
        command = ["cp", "--reflink=always", source, target]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    finally:
        for path in (source, target):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


@contextlib.contextmanager
def alone(seconds: int = 900) -> Iterator[None]:
    """One at a time. A module whose controller has died goes on to its end, and the next run waits for that."""
    with open(LOCK, "a", encoding="utf-8") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed(
                        f"another run of this upgrade is still at work on the host after {seconds} s"
                    ) from None
                time.sleep(1)
        yield


def unit_name() -> str:
    """One that systemd has never had: of a unit that has just ended it may still have the name."""
    return f"{UNIT}-{os.getpid()}-{time.monotonic_ns()}.service"


def in_unit(command: List[str], directory: str, server: str = "") -> str:
    """Run as postgres, and wait unless it is a server. Whatever it starts ends with its unit, also when we were killed.

    SIGINT is a fast shutdown to a server, which then ends its processes itself; pg_upgrade does not end its servers.
    """
    properties = ["KillSignal=SIGINT", f"KillMode={'mixed' if server else 'control-group'}", "TimeoutStopSec=600"]
    properties.append(f"WorkingDirectory={directory}")
    options = ["--quiet", "--collect", f"--unit={server or unit_name()}", "--uid=postgres", "--setenv=LC_ALL=C"]
    options += [f"--property={one}" for one in properties]
    return run("systemd-run", *options, *([] if server else ["--wait", "--pipe"]), *command)


def end_units() -> None:
    """End what an upgrade has running, this one or one that was killed: a fast shutdown of each server."""
    systemctl("stop", f"{UNIT}-*.service", check=False)


class Private(Cluster):
    """The same cluster, started for us alone: no address, and a socket where only root and postgres come."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.version, cluster.name, cluster.port)
        self.socket_directory = SOCKETS

    @contextlib.contextmanager
    def up(self, *settings: str, seconds: int = 600) -> Iterator[Cluster]:
        own = [
            "listen_addresses=",
            f"unix_socket_directories={SOCKETS}",
            "unix_socket_permissions=0700",
            "autovacuum=off",
        ]
        command = [f"{self.binaries}/postgres", "-D", self.configuration, "-p", str(self.port)]
        for setting in [*own, *settings]:
            command += ["-c", setting]
        unit = unit_name()
        in_unit(command, "/", unit)
        deadline = time.monotonic() + seconds
        try:
            while not self.started_at():
                if time.monotonic() > deadline or systemctl("is-active", unit, check=False) != "active":
                    said = run("journalctl", "--unit", unit, "--lines=12", "--no-pager", "--quiet", "--output=cat")
                    raise Failed(f"cluster {self.version}/{self.name} does not start for the comparison:\n{said}")
                time.sleep(0.05)
            yield self
        finally:
            end_units()


def set_start(cluster: Cluster, mode: str) -> None:
    """Whether the cluster starts with the host: auto, or disabled, which also keeps an operator's hand from it."""
    if start_mode(cluster.configuration) == mode:
        return
    path = f"{cluster.configuration}/start.conf"
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        handle.write(f"# Written by {plan.PLAYBOOK}.\n{mode}\n")
        handle.flush()
        os.fsync(handle.fileno())
    owned_by_postgres(f"{path}.new")
    os.replace(f"{path}.new", path)


def set_port(cluster: Cluster, port: int) -> None:
    of = (cluster.version, cluster.name)
    if run("pg_conftool", "--short", *of, "show", "port") != str(port):
        run("pg_conftool", *of, "set", "port", str(port))


def exchange(leaving: Cluster, coming: Cluster) -> None:
    """The port and the start at boot go over. At no moment do both have them."""
    set_start(leaving, "disabled")
    set_port(leaving, leaving.port + 1)
    set_port(coming, coming.port)
    set_start(coming, "auto")
