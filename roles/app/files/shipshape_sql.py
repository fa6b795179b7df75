"""Applies the SQL migrations of an app in the order of their names, and takes them back.

    shipshape_sql.py up FOLDER RELEASE      apply what the folder has and the database has not
    shipshape_sql.py down FOLDER            take back, last first, what the database has and the folder has not

The folder has NAME.sql, and for each the way back, NAME.down.sql or NAME_rollback.sql. Which were applied, and how they
are taken back, is kept in the table shipshape_migrations of the database that DATABASE_URL names. A migration and its
record are one transaction, unless it has a COMMIT of its own; one that begins with a line `-- no transaction` (CREATE
INDEX CONCURRENTLY) is run by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.sql")
#: How the way back of a migration is named.
DOWN = (".down.sql", "_rollback.sql")
ALONE = re.compile(r"\s*--\s*no transaction\b", re.IGNORECASE)
TABLE = """
SET client_min_messages = warning;
CREATE TABLE IF NOT EXISTS shipshape_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    down text NOT NULL,
    release text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
APPLIED = """
SELECT coalesce(json_agg(m ORDER BY m.applied_at, m.name), '[]')
FROM (SELECT name, sha256, down, applied_at FROM shipshape_migrations) AS m;
"""


class Refused(Exception):
    """What cannot be done, and what to do about it."""


@dataclass(frozen=True)
class Migration:
    """A file of the folder, with its way back."""

    name: str
    up: str
    down: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.up.encode()).hexdigest()


def names_in(folder: Path) -> List[str]:
    """The migrations of a folder, in order."""
    if not folder.is_dir():
        raise Refused(f"there is no folder {folder} in this release; `migrate.sql` says where the SQL files are")
    files = sorted(path.name for path in folder.iterdir() if path.suffix == ".sql" and path.is_file())
    strange = [name for name in files if not NAME.fullmatch(name)]
    if strange:
        raise Refused(f"{folder}/{strange[0]}: name it with letters, digits, dots, hyphens and underscores alone")
    return [name for name in files if not name.endswith(DOWN)]


def read(folder: Path, name: str) -> Migration:
    """One migration; without a way back it is refused."""
    backs = [folder / (name[: -len(".sql")] + suffix) for suffix in DOWN]
    down = next((path for path in backs if path.is_file()), None)
    if down is None:
        raise Refused(
            f"{folder}/{name} has no way back: write {backs[0].name} beside it (a comment alone says that nothing is to"
            " be taken back)"
        )
    return Migration(name, (folder / name).read_text(encoding="utf-8"), down.read_text(encoding="utf-8"))


def pending(folder: Path, applied: Sequence[Mapping[str, str]]) -> List[Migration]:
    """What is to be applied; refuses a folder whose applied migrations have been edited since."""
    known = {str(row["name"]): row for row in applied}
    found = []
    for name in names_in(folder):
        if name not in known:
            found.append(read(folder, name))
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != known[name]["sha256"]:
            raise Refused(
                f"{folder}/{name} is not what was applied on {known[name]['applied_at']}: leave it as it was, and write"
                " a new migration"
            )
    return found


def superfluous(folder: Path, applied: Sequence[Mapping[str, str]]) -> List[Mapping[str, str]]:
    """What is to be taken back so that the database is as that folder has it, last first."""
    kept = set(names_in(folder))
    return [row for row in reversed(applied) if row["name"] not in kept]


def connection(url: str) -> Dict[str, str]:
    """What psql needs to know, as its environment: arguments can be read by others."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise Refused("DATABASE_URL is not set, or not postgresql://…: give the app a `database`")
    found = {
        # A container's URL names the folder of the socket so.
        "PGHOST": parts.hostname or asked.get("host", ""),
        "PGPORT": str(parts.port or ""),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
        "PGSSLMODE": asked.get("sslmode", ""),
    }
    return {name: value for name, value in found.items() if value}


def quoted(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


class Database:
    """One database, by psql."""

    def __init__(self, url: str) -> None:
        self.environment = {**os.environ, **connection(url)}

    def run(self, sql: str, alone: bool = False) -> str:
        """Run statements, in one transaction unless they are to be alone; returns what they print."""
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]
        command += [] if alone else ["--single-transaction"]
        done = subprocess.run(
            [*command, "--file", "-"],
            input=sql,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stderr.strip() or f"psql ended with {done.returncode}")
        return done.stdout

    def applied(self) -> List[Dict[str, str]]:
        """What was applied, in that order."""
        rows: List[Dict[str, str]] = json.loads(self.run(TABLE + APPLIED))
        return rows

    def change(self, sql: str, record: str) -> None:
        """A migration, or its way back, with what is noted of it."""
        if ALONE.match(sql):
            # Should this be cut off in between, the next run says of what is there already that it is there.
            self.run(sql, alone=True)
            self.run(record)
        else:
            self.run(f"{sql}\n;\n{record}")


def up(database: Database, folder: Path, release: str) -> None:
    """Apply what is pending."""
    for migration in pending(folder, database.applied()):
        values = ", ".join(map(quoted, (migration.name, migration.sha256, migration.down, release)))
        record = f"INSERT INTO shipshape_migrations (name, sha256, down, release) VALUES ({values});"
        try:
            database.change(migration.up, record)
        except Refused as error:
            said = f"{folder}/{migration.name} failed and was taken back; nothing after it was tried:\n{error}"
            raise Refused(said) from error
        print(f"applied {migration.name}", flush=True)


def down(database: Database, folder: Path) -> None:
    """Take back what the folder does not know."""
    for row in superfluous(folder, database.applied()):
        record = f"DELETE FROM shipshape_migrations WHERE name = {quoted(row['name'])};"
        try:
            database.change(row["down"], record)
        except Refused as error:
            raise Refused(f"the way back of {row['name']} failed; it is still applied:\n{error}") from error
        print(f"took back {row['name']}", flush=True)


def main(arguments: Sequence[str]) -> int:
    try:
        # Where there is a pooler, this URL leads past it: a migration may hold a lock of its session.
        database = Database(os.environ.get("DIRECT_DATABASE_URL") or os.environ.get("DATABASE_URL", ""))
        if arguments[:1] == ["up"] and len(arguments) == 3:
            up(database, Path(arguments[1]), arguments[2])
        elif arguments[:1] == ["down"] and len(arguments) == 2:
            down(database, Path(arguments[1]))
        else:
            raise Refused(str(__doc__))
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
