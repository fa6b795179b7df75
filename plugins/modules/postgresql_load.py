#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_load
short_description: Load a file of SQL or a dump into a new database, once
version_added: 0.1.0
description:
  - Loads plain SQL (also with gzip) or a dump in pg_dump's custom format as the owner of the database, in one
    transaction. The record that it was loaded, a comment on the database, is part of it. So a load that fails or is
    killed leaves nothing.
  - A database that was loaded once, or in which there is something of somebody's already, is left alone.
  - What a dump says of the roles of another server is left out; all of it belongs to the owner.
options:
  version: {description: Major version of the cluster., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns it., type: str, required: true}
  password: {description: "Its password; left out, the one that is kept on the host.", type: str}
  path: {description: The file on the host., type: path, required: true}
  name: {description: What the operator calls the file., type: str, required: true}
  remove: {description: Remove the file in any case., type: bool, default: false}
  secrets_directory:
    description: Where generated passwords are kept.
    type: path
    default: /etc/shipshape/postgresql
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Load | Load the schema into the new database
  shipshape.droplet.postgresql_load:
    {version: "15", database: shop, owner: shop, path: /var/lib/shipshape/postgresql/shop, name: schema.sql}
"""

RETURN = r"""
lines: {description: Lines of SQL that were run., type: int, returned: success}
"""

import contextlib
import datetime
import gzip
import os
import subprocess
import tempfile
from typing import IO, Any, Dict, Iterator, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_dump as dump
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file, umask
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


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            version=dict(type="str", required=True),
            database=dict(type="str", required=True),
            owner=dict(type="str", required=True),
            password=dict(type="str", no_log=True),
            path=dict(type="path", required=True),
            name=dict(type="str", required=True),
            remove=dict(type="bool", default=False),
            secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    wanted = module.params
    cluster = Cluster(wanted["version"])
    try:
        found = cluster.query(planning.database_state({}), wanted["database"])
        if planning.load_state(found) != planning.NEW:
            module.exit_json(changed=False, lines=0)
        count = 0 if module.check_mode else load(cluster, wanted, password_of(wanted), list(found["schemas"]))
    except Torn as error:
        module.fail_json(msg=f"{wanted['name']} cannot be loaded into database {wanted['database']}: {error}")
    except (dump.Unloadable, ServerError, secret_file.UnsafeSecret, OSError) as error:
        where = f"database {wanted['database']}, which is as empty as before"
        module.fail_json(msg=f"{wanted['name']} was not loaded into {where}: {error}")
    finally:
        if wanted["remove"] and not module.check_mode and os.path.exists(wanted["path"]):
            os.remove(wanted["path"])
    module.exit_json(changed=True, lines=count)


if __name__ == "__main__":
    main()
