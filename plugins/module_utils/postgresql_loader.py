"""Loading a file of SQL or a dump into a database, as its owner and in one transaction with the record of it."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import os
import subprocess
import tempfile
from typing import IO, Any, Dict, Iterator, List

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_dump as dump
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_names import quote_name, quote_text
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    Cluster,
    ServerError,
    conninfo,
    start_as_postgres,
)

#: A file that commits by itself has taken this with it; then its end fails, and loudly.
WHOLE = "shipshape_whole"


def lines_of(path: str, cluster: Cluster) -> Iterator[bytes]:
    """The file as lines of SQL, whatever it is."""
    with open(path, "rb") as handle:
        start = handle.read(len(dump.CUSTOM))
        handle.seek(0)
        if start == dump.CUSTOM:
            os.lseek(handle.fileno(), 0, os.SEEK_SET)  # what was read here, pg_restore reads again
            yield from restored(handle, cluster)
        elif start.startswith(dump.GZIP):
            try:
                with gzip.open(handle) as inside:
                    yield from inside
            except (EOFError, OSError) as error:
                raise dump.Unloadable(f"it is cut off or damaged ({error}). Copy it again") from error
        else:
            yield from handle


def restored(handle: IO[bytes], cluster: Cluster) -> Iterator[bytes]:
    """A dump in the custom format, as pg_restore writes it."""
    with tempfile.TemporaryFile() as errors:
        command = [os.path.join(cluster.binaries, "pg_restore"), "--no-owner", "--no-privileges", "-f", "-"]
        process = start_as_postgres(command, stdin=handle, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            yield from process.stdout
        finally:
            process.stdout.close()
            code = process.wait()
        if code != 0:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip()
            known = f"Is it whole, and from PostgreSQL {cluster.version} or older?"
            raise dump.Unloadable(f"pg_restore cannot read it to its end: {said}. {known}")


class Torn(Exception):
    """The file has ended our transaction."""


class Session:
    """psql as the owner of the database, in a transaction that only `commit` ends well."""

    def __init__(self, cluster: Cluster, database: str, owner: str, password: str) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - the process has it as long as it runs
        command = [os.path.join(cluster.binaries, "psql"), "-XqAtw", "-v", "ON_ERROR_STOP=1", "-d", conninfo(database)]
        self.process = start_as_postgres(
            command + ["-f", "-"],
            cluster.port,
            {"PGUSER": owner, "PGPASSWORD": password},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
        )

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            self.fail()

    def commit(self, record: str) -> None:
        self.send(f"\n;\nRELEASE SAVEPOINT {WHOLE};\n{record};\nCOMMIT;\n".encode())
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.wait() != 0:
            self.fail()

    def fail(self) -> None:
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace").replace("psql:<stdin>:", "line ").strip()
        if WHOLE in said or "RELEASE SAVEPOINT can only" in said:
            raise Torn(
                "it ends the transaction by itself, so that a part of it may be there: take END and ROLLBACK out"
            )
        raise ServerError(said or f"psql ended with {self.process.returncode}")

    def abandon(self) -> None:
        """End it without a commit: the server takes everything back."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()


def load(cluster: Cluster, wanted: Dict[str, Any], password: str, schemas: List[str]) -> int:
    """The number of lines that were run."""
    session = Session(cluster, wanted["database"], wanted["owner"], password)
    count = 0
    try:
        # On the first line of the file, so that the server's lines are those of the file.
        session.send(f"BEGIN; SAVEPOINT {WHOLE}; ".encode())
        for line in dump.statements(lines_of(wanted["path"], cluster), frozenset(schemas)):
            session.send(line)
            count += 1
        today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        record = quote_text(f"{planning.LOADED} {wanted['name']} on {today}")
        session.commit(f"COMMENT ON DATABASE {quote_name(wanted['database'])} IS {record}")
    finally:
        session.abandon()
    return count


def password_of(wanted: Dict[str, Any]) -> str:
    given = wanted["password"] or secret_file.read(
        os.path.join(wanted["secrets_directory"], "{}.password".format(wanted["owner"]))
    )
    if not given:
        raise ServerError(f"the password of role {wanted['owner']} is neither given nor kept on this host")
    return str(given)
