"""A PostgreSQL server of the live one's version for as long as a rehearsal lasts. Nobody else can reach it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from shipshape_backup.postgres import as_postgres, psql
from shipshape_backup.unattended import Failure

UNIT = "shipshape-backup-drill.service"
#: The least share of processor and disk that there is, and little memory; and it goes before the live one does.
LIMITS = ("CPUWeight=10", "IOWeight=10", "MemoryHigh=25%", "OOMScoreAdjust=500")
#: Nothing of it is kept, so nothing of it waits for the disk.
SETTINGS = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
    "wal_level": "minimal", "max_wal_senders": "0", "max_connections": "20", "shared_buffers": "64MB",
    "maintenance_work_mem": "64MB", "autovacuum": "off", "logging_collector": "off",
}  # fmt: skip


def remove(folder: Path) -> None:
    """The server, and all that it has written; also those of a rehearsal that was killed."""
    subprocess.run(["systemctl", "stop", UNIT], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(folder: Path, minutes: int) -> Iterator[str]:
    """The folder of its socket. It has the live server's roles, without passwords, and ends after so many minutes."""
    programs = Path(psql("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
    roles = psql("SELECT format('CREATE ROLE %I;', rolname) FROM pg_roles WHERE rolname !~ '^(pg_|postgres$)'")
    # Some extensions are there only where their library was loaded at the start.
    libraries = psql("SHOW shared_preload_libraries")
    remove(folder)
    folder.mkdir(mode=0o700)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        options = ["--no-sync", "--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8", f"--pgdata={data}"]
        run(str(programs / "initdb"), *options)
        settings = {**SETTINGS, "unix_socket_directories": str(folder), "shared_preload_libraries": libraries}
        start(programs, data, settings, minutes)
        psql(roles, at=str(folder))
        yield str(folder)
    finally:
        remove(folder)


def run(*command: str) -> None:
    process = as_postgres(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _out, err = process.communicate()
    if process.returncode != 0:
        raise Failure(f"{command[0]} ended with {process.returncode}: {err.decode('utf-8', 'replace').strip()[-1000:]}")


def start(programs: Path, data: Path, settings: dict[str, str], minutes: int) -> None:
    """Until it takes connections. It is a unit of its own, so that its limits hold and nothing of it outlives it."""
    limits = [f"--property={limit}" for limit in (*LIMITS, f"RuntimeMaxSec={minutes * 60}", "KillSignal=SIGQUIT")]
    unit = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", "--uid=postgres", "--service-type=notify", *limits]
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*unit, str(programs / "postgres"), "-D", str(data), *options]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise Failure(f"the server for the rehearsal does not start: {said} See: journalctl -u {UNIT}")
