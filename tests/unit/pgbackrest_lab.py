"""A real PostgreSQL and a real pgBackRest with the role's own configuration, in a folder, with a clock that can be set.

The role's program finds what it calls on PATH: the two, and a systemctl that starts and stops clusters by pg_ctl.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit import packaged, s3_lab
from tests.unit.nginx_lab import free_port

ROLE = Path(__file__).parents[2] / "roles" / "pgbackrest"
PASSWORD = "a repository's pass'word"
STANZA = "main"
#: PostgreSQL refuses to run as root.
ACCOUNT = pwd.getpwuid(os.getuid())
if ACCOUNT.pw_uid == 0:
    ACCOUNT = max(account for account in pwd.getpwall() if account.pw_name in ("nobody", "postgres"))
AS_ACCOUNT = f'test "$(id -u)" = 0 && set -- setpriv --reuid={ACCOUNT.pw_uid} --regid={ACCOUNT.pw_gid} --clear-groups'
SYSTEMCTL = """#!/bin/sh
# start, stop and show of postgresql@VERSION-NAME.service; whatever else is asked for is done.
for word; do case "$word" in postgresql@*) name=${{word##*-}}; name=${{name%.service}} ;; esac; done
control() {{ {root}/bin/as-account {programs}/pg_ctl -D {root}/clusters/{version}/$name -s "$@"; }}
case " $* " in
  *" start "*) control start -W -l {root}/log/postgresql-{version}-$name.log \\
    -o "-c config_file={root}/etc/{version}/$name/postgresql.conf" ;;
  *" stop "*) control stop -m fast 2> {root}/log/stop || grep -q 'PID file.*does not exist' {root}/log/stop ;;
  *" show "*) control status > {root}/log/status && echo active || echo inactive ;;
esac
"""
SETTINGS = """
data_directory = '{root}/clusters/{version}/main'
hba_file = '{root}/etc/{version}/main/pg_hba.conf'
ident_file = '{root}/etc/{version}/main/pg_ident.conf'
port = {port}
unix_socket_directories = '{root}/run'
listen_addresses = ''
fsync = off
shared_buffers = 16MB
min_wal_size = 2MB
max_wal_size = 16MB
include_dir 'conf.d'
"""


def programs() -> Path:
    """PostgreSQL's own, of the newest version that is installed, or else that apt has."""
    installed = sorted(Path("/usr/lib/postgresql").glob("[1-9][0-9]/bin/postgres"))
    if installed:
        return installed[-1].parent
    said = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"postgresql-(\d+)", said)
    assert found, "These tests need PostgreSQL, and apt does not know it."
    program = f"usr/lib/postgresql/{found[1]}/bin/postgres"
    packages = [f"postgresql-{found[1]}", f"postgresql-client-{found[1]}", "libpq5"]
    return (packaged.home(program, *packages) / program).parent


def configuration(values: dict[str, Any]) -> str:
    """pgbackrest.conf as the role writes it."""
    loader = DataLoader()
    variables: dict[str, Any] = {"inventory_hostname": "db-1", "ansible_facts": {"processor_vcpus": 2}}
    for part in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    text = trust_as_template((ROLE / "templates" / "pgbackrest.conf.j2").read_text())
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    return str(Templar(loader, {**variables, **values}).template(text, overrides=overrides))


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """For the account to read, too, whatever the mask is that the program has set."""
    path.write_text(text)
    path.chmod(mode)


@contextmanager
def folder() -> Iterator[Path]:
    """One that the account can get to, which pytest's own is not; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="shipshape-pgbackrest-", dir="/var/tmp"))
    os.chown(root, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    root.chmod(0o755)
    try:
        yield root
    finally:
        for _ in range(100):  # until what was told to end has written its last
            shutil.rmtree(root, ignore_errors=True)
            if not root.exists():
                break
            time.sleep(0.05)


def template(root: Path) -> Path:
    """An empty cluster with segments of 1 MB, and with the database postgres alone, since each file takes time."""
    (root / "as-account").write_text(f'#!/bin/sh\ncommand="$*"\nset --\n{AS_ACCOUNT}\nexec "$@" $command\n')
    (root / "as-account").chmod(0o755)
    command = [str(programs() / "initdb"), "-D", str(root / "cluster"), "-A", "trust", "-U", ACCOUNT.pw_name, "-N"]
    subprocess.run([str(root / "as-account"), *command, "-k", "--wal-segsize=1"], check=True, capture_output=True)
    alone = "UPDATE pg_database SET datistemplate = false;\nDROP DATABASE template0;\nDROP DATABASE template1;\n"
    single = [str(programs() / "postgres"), "--single", "-F", "-D", str(root / "cluster"), "postgres"]
    subprocess.run([str(root / "as-account"), *single], check=True, capture_output=True, input=alone, text=True)
    return root / "cluster"


class Server:
    """Cluster `main` below `root`, which archives to a bucket, or else to a directory."""

    def __init__(self, root: Path, cluster: Path, bucket: s3_lab.Store | None = None, clock: bool = False) -> None:
        self.root, self.bucket, self.clock = root, bucket, clock
        self.programs = programs()
        self.version = self.programs.parent.name
        self.port = free_port()
        self.data = root / "clusters" / self.version / "main"
        self.etc = root / "etc" / self.version / "main"
        for name in ("bin", "run", "log", "spool", "lock", "repository", "state/drills"):
            self._folder(root / name)
        for path in (self.data.parent, self.etc / "conf.d"):
            self._folder(path)
        put(root / "clock", "+0d\n")
        self._write_programs()
        subprocess.run(["cp", "-a", str(cluster), str(self.data)], check=True)
        for name in ("pg_hba.conf", "pg_ident.conf"):
            shutil.copy(self.data / name, self.etc / name)
            os.chown(self.etc / name, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        exports = DataLoader().load_from_file(str(ROLE / "defaults" / "main.yml"), trusted_as_template=False)
        wanted = {**exports["pgbackrest_export_postgresql_settings"], "archive_timeout": 45}
        put(self.etc / "postgresql.conf", SETTINGS.format(root=root, version=self.version, port=self.port))
        lines = [f"{name} = '{value}'\n" for name, value in wanted.items()]
        put(self.etc / "conf.d" / "shipshape.conf", "".join(lines))
        self.configure()

    def _folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        while path != self.root:
            os.chown(path, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
            path = path.parent

    def _write_programs(self) -> None:
        real = packaged.home("usr/bin/pgbackrest", "pgbackrest") / "usr/bin/pgbackrest"
        clock = ""
        if self.clock:
            library = f"usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"
            preload = packaged.home(library, "libfaketime") / library
            # Monotonic time goes on as it is: by it programs wait.
            clock = (
                f"set -- env FAKETIME_TIMESTAMP_FILE={self.root}/clock FAKETIME_NO_CACHE=1 "
                f'FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 LD_PRELOAD={preload} "$@"\n'
            )
        # Of the account from its first breath, so that what it shares with its children in /dev/shm is theirs, too.
        run = f'{clock}{AS_ACCOUNT} "$@"\nexec "$@"\n'
        settings = f"--config={self.root}/pgbackrest.conf"
        texts = {
            "as-account": f"#!/bin/sh\nPATH={self.root}/bin:$PATH\n{run}",
            "pgbackrest": f'#!/bin/sh\nset -- {real} {settings} "$@"\n{run}',
            "psql": f'#!/bin/sh\nexport PGHOST={self.root}/run\nset -- {self.programs}/psql "$@"\n{run}',
            "systemctl": SYSTEMCTL.format(root=self.root, version=self.version, programs=self.programs),
        }
        for name, text in texts.items():
            put(self.root / "bin" / name, text, 0o755)

    def configure(self, *replaced: tuple[str, str], **values: Any) -> None:
        """The role's configuration for these variables, at this folder's places; then by pattern what is replaced."""
        given: dict[str, Any] = {
            "pgbackrest_password": PASSWORD, "pgbackrest_postgresql_version": self.version,
            "pgbackrest_postgresql_port": self.port, "pgbackrest_directory": f"{self.root}/repository",
        }  # fmt: skip
        if self.bucket:
            given["pgbackrest_directory"] = ""
            given["pgbackrest_s3"] = {"endpoint": "https://localhost", "bucket": "bucket", **s3_lab.KEYS}
        text = configuration({**given, **values})
        places = [
            (r"pg1-path=.*", f"pg1-path={self.data}"),
            (r"pg1-socket-path=.*", f"pg1-socket-path={self.root}/run"),
            (r"lock-path=.*", f"lock-path={self.root}/lock\nlog-path={self.root}/log"),
            (r"spool-path=.*", f"spool-path={self.root}/spool"),
            # A store that does not answer is waited for four times, and the log that does not get there for a minute.
            (r"io-timeout=.*", "io-timeout=0.5\narchive-timeout=5"),
        ]
        if self.bucket:
            self.bucket.certificate.chmod(0o644)
            address = f"repo1-storage-port={self.bucket.url.rpartition(':')[2]}"
            places.append((r"repo1-storage-ca-file=.*", f"repo1-storage-ca-file={self.bucket.certificate}\n{address}"))
        for pattern, line in [*places, *replaced]:
            text, count = re.subn(rf"^{pattern}$", lambda _, line=line: line, text, flags=re.MULTILINE)  # type: ignore[misc]
            assert count == 1, f"{pattern} is {count} times in pgbackrest.conf"
        put(self.root / "pgbackrest.conf", text)

    def program(self, webhook: str = "", **values: Any) -> Path:
        """The directory of the role's program's configuration."""
        given = {
            "host": "db-1", "repository": "the repository", "recovery_days": 7, "archive_timeout_seconds": 45,
            "pgbackrest_configuration": str(self.root / "pgbackrest.conf"), "postgresql_version": self.version,
            "behind_minutes": 10, "postgresql_port": self.port, "timeout_minutes": 2, "jitter_minutes": 0,
            "mail": "ops@shop.test", "state_directory": str(self.root / "state"),
            "lock_file": str(self.root / "lock-of-the-program"), "clusters_directory": str(self.root / "clusters"),
            "configurations_directory": str(self.root / "etc"), "logs_directory": str(self.root / "log"),
        }  # fmt: skip
        directory = self.root / "program"
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps({**given, **values}))
        (directory / "webhook").write_text(webhook + "\n")
        return directory

    def call(self, program: str, *arguments: str, check: bool = True) -> str:
        command = [str(self.root / "bin" / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")
        assert not check or done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def pgbackrest(self, *arguments: str) -> str:
        return self.call("pgbackrest", f"--stanza={STANZA}", *arguments)

    def sql(self, statement: str, port: int | None = None, check: bool = True) -> str:
        # The account may have another name than the database.
        where = ("-d", "postgres", "-p", str(port or self.port))
        return self.call("psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", *where, "-c", statement, check=check).strip()

    def start(self) -> None:
        self.call("systemctl", "start", f"postgresql@{self.version}-main.service")
        deadline = time.monotonic() + 30
        while self.sql("SELECT 1", check=False) != "1":
            assert time.monotonic() < deadline, (self.root / "log" / f"postgresql-{self.version}-main.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """All clusters, at once: nothing of them is kept."""
        for path in self.data.parent.iterdir():
            if (path / "postmaster.pid").exists():
                control = [str(self.programs / "pg_ctl"), "-D", str(path), "-s", "-m", "immediate", "stop"]
                self.call("as-account", *control, check=False)

        # The process that stores the log outlives PostgreSQL while it waits for a store.
        self.call("pgbackrest", f"--stanza={STANZA}", "--force", "stop", check=False)
        for path in Path("/dev/shm").glob("*faketime_*"):  # of processes that were not asked to end
            if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists() and path.stat().st_uid == ACCOUNT.pw_uid:
                path.unlink(missing_ok=True)

    def waiting(self) -> int:
        """How many segments of the log PostgreSQL wants archived."""
        return len(list((self.data / "pg_wal" / "archive_status").glob("*.ready")))

    def set_clock(self, days: float) -> None:
        """So many days from now, for PostgreSQL and pgBackRest alone."""
        put(self.root / "clock.new", f"{days * 86400:+.0f}\n")
        (self.root / "clock.new").replace(self.root / "clock")


@contextmanager
def running(cluster: Path, root: Path, bucket: s3_lab.Store | None = None, clock: bool = False) -> Iterator[Server]:
    """With its stanza; the log arrives in the repository."""
    server = Server(root, cluster, bucket, clock)
    server.start()
    try:
        server.pgbackrest("stanza-create")
        yield server
    finally:
        server.stop()
