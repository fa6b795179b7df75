"""The local PostgreSQL server, spoken to as the system user postgres."""

from __future__ import annotations

import os
import subprocess
import urllib.parse
from typing import Any

from shipshape_backup.unattended import Failure


def as_postgres(*command: str, **streams: Any) -> subprocess.Popen[bytes]:
    account: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LC_ALL": "C",
        "PGCONNECT_TIMEOUT": "30",
    }
    try:
        return subprocess.Popen(command, env=environment, cwd="/", **account, **streams)
    except (FileNotFoundError, LookupError) as error:
        raise Failure(f"{command[0]} cannot be run: PostgreSQL is not installed on this host") from error


def psql(statement: str, database: str = "postgres", at: str = "", **variables: str) -> str:
    """The variables are referred to as :'name' (a text) or :"name" (an identifier). `at`: as in conninfo."""
    code, out, err = _psql(
        statement, database, at, "ON_ERROR_STOP=1", *(f"{name}={value}" for name, value in variables.items())
    )
    if code != 0:
        raise Failure(f"PostgreSQL says: {err}")
    return out


def answers(statements: str, database: str, at: str = "") -> str:
    """Of those that are answered; one that takes longer than it may does not keep back the others."""
    _code, out, _err = _psql(statements, database, at)
    return out


def _psql(statement: str, database: str, at: str, *variables: str) -> tuple[int, str, str]:
    assignments = [part for variable in variables for part in ("-v", variable)]
    command = ["psql", "-XqAtw", *assignments, "-d", conninfo(database, at), "-f", "-"]
    process = as_postgres(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(statement.encode())
    return process.returncode, out.decode().strip(), err.decode("utf-8", "replace").strip()


def conninfo(database: str, at: str = "") -> str:
    """A name as a connection string, because psql and pg_dump take a name with = in it for one.

    `at`: the folder of the socket of another server than the live one.
    """
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}'" + (f" host='{at}'" if at else "")


def exists(database: str) -> bool:
    return psql("SELECT 1 FROM pg_database WHERE datname = :'name'", name=database) == "1"


def tag_of(database: str) -> str:
    return "database:" + urllib.parse.quote(database, safe="")


def file_of(database: str) -> str:
    return urllib.parse.quote(database, safe="") + ".dump"
