"""A droplet that is nothing but a database server, brought up by Shipshape for as long as it is measured."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.commands import timed
from tests.lab import droplet, inventory, settings
from tests.lab.engine import docker, stage

HOST = "bench"
#: The database of its one app, and the app's role in it.
DATABASE = f"{HOST}_app"


@dataclass(frozen=True)
class Server:
    droplet: str
    inventory: str

    def play(self, playbook: str, *arguments: str) -> tuple[float, str]:
        return timed("ansible-playbook", playbook, "-i", self.inventory, *arguments)

    def root(self, script: str, stdin: str = "") -> str:
        return docker("exec", "--interactive", self.droplet, "sh", "-euc", script, stdin=stdin.encode())

    def postgres(self, script: str, stdin: str = "") -> str:
        command = ("runuser", "-u", "postgres", "--", "sh", "-euc", f"cd /\n{script}")
        return docker("exec", "--interactive", self.droplet, *command, stdin=stdin.encode())

    def sql(self, statements: str, database: str = DATABASE, port: int = 5432) -> str:
        """What they answer, by the superuser over the socket; the first error ends it."""
        return self.postgres(f"psql -XqAt -v ON_ERROR_STOP=1 -p {port} -d {database} -f -", statements)

    def json(self, script: str) -> Any:
        return json.loads(self.root(script))


def inventory_of(address: str, database: Mapping[str, Any], **variables: Any) -> dict[str, Any]:
    """With one app that is never deployed. `database` is what it says of its database."""
    made = inventory.one_droplet(HOST, address, f"{HOST}.test")
    made["all"]["vars"]["apps"][f"{HOST}-app"]["database"] = dict(database)
    made["all"]["vars"].update(variables)
    return made


@contextmanager
def brought_up(
    name: str,
    address: str,
    command: tuple[str, ...],
    database: Mapping[str, Any],
    disk: droplet.Disk | None = None,
    **variables: Any,
) -> Iterator[Server]:
    """By that playbook with those arguments, from a bare droplet."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            hosts = inventory.write(Path(folder), inventory_of(address, database, **variables))
            droplet.remove(name)
            droplet.start(name, settings.DEFAULT_RELEASE, address, disk=disk)
            server = Server(name, str(hosts))
            with stage(f"{' '.join(command)} on {name}"):
                server.play(*command)
            yield server
    finally:
        droplet.remove(name)
