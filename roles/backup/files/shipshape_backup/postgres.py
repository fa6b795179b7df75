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


def psql(statement: str, database: str = "postgres", **variables: str) -> str:
    """The variables are referred to as :'name' (a text) or :"name" (an identifier)."""
    assignments = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    command = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", *assignments, "-d", conninfo(database), "-f", "-"]
    process = as_postgres(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(statement.encode())
    if process.returncode != 0:
        raise Failure(f"PostgreSQL says: {err.decode('utf-8', 'replace').strip()}")
    return out.decode().strip()


def conninfo(database: str) -> str:
    """A name as a connection string, because psql and pg_dump take a name with = in it for one."""
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{quoted}'"


def exists(database: str) -> bool:
    return psql("SELECT 1 FROM pg_database WHERE datname = :'name'", name=database) == "1"


def tag_of(database: str) -> str:
    return "database:" + urllib.parse.quote(database, safe="")


def file_of(database: str) -> str:
    return urllib.parse.quote(database, safe="") + ".dump"
