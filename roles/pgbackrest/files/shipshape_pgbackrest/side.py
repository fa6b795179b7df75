"""A cluster beside the live one: its files, its configuration, its unit."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Optional

from shipshape_pgbackrest.tool import DiskFull, Settings, psql
from shipshape_pgbackrest.unattended import Failure, too_full, write

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
#: What a restored cluster must not take over from postgresql.auto.conf, and what pgBackRest adds there.
OURS = re.compile(r"(archive_\w+|port|restore_command|recovery_target\w*)\s*=")


class Side:
    """Cluster NAME of the live one's version. It never archives: the repository belongs to the live one."""

    def __init__(self, settings: Settings, name: str) -> None:
        if not NAME.fullmatch(name) or name == "main":
            raise Failure(
                f"'{name}' is no name for a cluster beside the live one: lower-case letters, digits, _, and not main"
            )
        self.settings = settings
        self.name = name
        self.data = settings.clusters / name
        self.configuration = settings.configurations / name
        self.unit = f"postgresql@{settings.version}-{name}.service"
        self.mark = settings.state / f"restoring-{name}"
        self.log = settings.log(name)

    @property
    def port(self) -> int:
        found = re.search(r"^port = (\d+)", (self.configuration / "conf.d" / "zz-side.conf").read_text(), re.MULTILINE)
        if not found:
            raise Failure(f"{self.configuration} is not the configuration of a restored cluster")
        return int(found[1])

    def require_free(self) -> None:
        """Nothing is overwritten; what a restore that was killed has left is ours and goes."""
        if self.mark.exists():
            self.remove()
        for path in (self.configuration, self.data, self.tablespaces):
            if path.exists():
                raise Failure(
                    f"{path} exists and is not overwritten. Is that the cluster of an earlier restore? "
                    f"shipshape-pgbackrest drop {self.name}"
                )

    def begin(self) -> None:
        write(self.mark, "a restore is at work, or was killed; the next one clears up\n")
        account = pwd.getpwnam("postgres")
        for path in (self.data, self.tablespaces):
            path.mkdir(mode=0o700)
            os.chown(path, account.pw_uid, account.pw_gid)

    @property
    def tablespaces(self) -> Path:
        return Path(self.settings.clusters, self.name + ".tablespaces")

    def configure(self, port: int, memory_mb: int = 64) -> None:
        """As the live cluster is configured, so that extensions and limits are the same, but for what must differ."""
        live = self.settings.configurations / "main"
        shutil.copytree(live, self.configuration)
        for path in [live, *live.rglob("*")]:
            status, copy = path.stat(), self.configuration / path.relative_to(live)
            os.chown(copy, status.st_uid, status.st_gid)
        lines = {
            "data_directory": f"'{self.data}'",
            "hba_file": f"'{self.configuration}/pg_hba.conf'",
            "ident_file": f"'{self.configuration}/pg_ident.conf'",
            "external_pid_file": f"'/run/postgresql/{self.settings.version}-{self.name}.pid'",
            "cluster_name": f"'{self.settings.version}/{self.name}'",
            "listen_addresses": "'localhost'",
            "port": str(port),
            "archive_mode": "off",
            "archive_command": "''",
            # Nobody copies this one: a commit would wait for a replica that never comes.
            "synchronous_standby_names": "''",
            "shared_buffers": f"'{memory_mb}MB'",
        }
        text = "# Managed by Shipshape: a cluster that was restored beside the live one.\n"
        text += "".join(f"{name} = {value}\n" for name, value in lines.items())
        write(self.configuration / "conf.d" / "zz-side.conf", text)
        write(self.configuration / "start.conf", "manual\n")
        # ALTER SYSTEM of the live cluster came along, and outranks all of the above.
        auto = self.data / "postgresql.auto.conf"
        kept = [line for line in auto.read_text().splitlines() if not re.match(r"(archive_\w+|port)\s*=", line)]
        auto.write_text("\n".join([*kept, "archive_mode = 'off'", f"port = '{port}'", ""]))

    def forget_the_restore(self) -> None:
        """Out of postgresql.auto.conf goes what was there for the restore alone."""
        auto = self.data / "postgresql.auto.conf"
        auto.write_text("".join(line + "\n" for line in auto.read_text().splitlines() if not OURS.match(line)))

    def archive_history(self) -> None:
        """Have the history of the timeline that the recovery began go to the repository, once the cluster archives.

        PostgreSQL marks it only where it archives at that moment, which this one does not. A later recovery that does
        not find it there would begin a timeline of the same number.
        """
        for history in (self.data / "pg_wal").glob("*.history"):
            status = history.parent / "archive_status" / history.name
            if not Path(f"{status}.done").exists():
                ready = Path(f"{status}.ready")
                ready.touch(mode=0o600)
                shutil.chown(ready, "postgres", "postgres")

    def start(self, seconds: float, spare: bool = False) -> None:
        """`spare`: not to the last of the disk, which the live cluster has, too."""
        control(self.unit, "start")
        wait(self.unit, self.port, self.log, seconds, self.settings.clusters if spare else None)

    def stop(self) -> None:
        if self.configuration.exists():
            control(self.unit, "stop")

    def finish(self) -> None:
        self.mark.unlink()

    def is_ours(self) -> bool:
        return self.mark.exists() or (self.configuration / "conf.d" / "zz-side.conf").exists()

    def remove(self) -> None:
        """All of it. Stopped first, also where only half of it was made."""
        if not self.is_ours():
            raise Failure(f"there is no restored cluster {self.name}; nothing was removed")
        self.stop()
        for path in (self.configuration, self.data, self.tablespaces):
            shutil.rmtree(path, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)


def control(unit: str, verb: str) -> None:
    """The start is waited for elsewhere: a recovery may take longer than the unit's own command waits."""
    subprocess.run(["systemctl", "reset-failed", unit], stderr=subprocess.DEVNULL, check=False)
    command = ["systemctl", *(["--no-block"] if verb == "start" else []), verb, unit]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Failure(
            f"'{' '.join(command)}' ended with {done.returncode}: {done.stdout.decode('utf-8', 'replace').strip()}"
        )


def tail(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)


class NotStarted(Failure):
    """A cluster that does not come up."""


def wait(unit: str, port: int, log: Path, seconds: float, disk: Optional[Path] = None) -> None:
    """Until the cluster has recovered and takes writes, or that disk has too little left."""
    deadline, down = time.monotonic() + seconds, 0
    while True:
        try:
            if psql("SELECT pg_is_in_recovery()", port) == "f":
                return
        except Failure:
            pass
        full = too_full(disk) if disk else ""
        if full:
            raise DiskFull(full)
        show = ["systemctl", "show", "--property=ActiveState", "--value", unit]
        state = subprocess.run(show, stdout=subprocess.PIPE, check=False).stdout.decode().strip()
        down = down + 1 if state in ("failed", "inactive") else 0
        if down > 10 or time.monotonic() > deadline:
            raise NotStarted(f"{unit} does not come up. The end of its log:\n{tail(log)}")
        time.sleep(0.2)


def free_port(first: int) -> int:
    """From the live cluster's on, the first that nothing has and no other cluster is configured for."""
    for port in range(first + 1, first + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if not Path(f"/run/postgresql/.s.PGSQL.{port}").exists():
            return port
    raise Failure(f"no port from {first + 1} on is free for the restored cluster")


def require_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    # WAL that is replayed is written, too, and a full disk would stop the live cluster.
    wanted = int(needed * 1.1) + (512 << 20)
    if free < wanted:
        raise Failure(
            f"{directory} has {free >> 20} MB left, and the restored cluster takes {wanted >> 20} MB. Nothing was done"
        )
