"""The local PostgreSQL server, spoken to as the system user postgres."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Dict, List


class Failure(Exception):
    """What went wrong, in words for the operator."""


def psql(sql: str, database: str = "postgres", **variables: str) -> str:
    """Run statements, each by itself. The variables are referred to as :'name' (a text) or :"name" (an identifier)."""
    told = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    command = ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse", *told, "-d", f"dbname='{quoted}'"]
    given = {name: os.environ[name] for name in ("PATH", "PGHOST", "PGPORT") if name in os.environ}
    account: Dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        done = subprocess.run(
            [*command, "-f", "-"],
            input=sql.encode(),
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGTZ": "UTC", "PGCONNECT_TIMEOUT": "30", **given},
            cwd="/",
            check=False,
            **account,
        )
    except (FileNotFoundError, LookupError) as error:
        raise Failure("psql cannot be run as postgres: PostgreSQL is not installed on this host") from error
    if done.returncode != 0:
        raise Failure(done.stderr.decode("utf-8", "replace").replace("psql:<stdin>:", "line ").strip())
    return str(done.stdout.decode("utf-8", "replace"))


def rows(question: str, database: str = "postgres", **variables: str) -> List[Dict[str, Any]]:
    """The rows of a question."""
    found: List[Dict[str, Any]] = json.loads(
        psql(f"SELECT coalesce(json_agg(one), '[]') FROM ({question}) AS one;", database, **variables)
    )
    return found


def databases(name: str = "") -> List[str]:
    """The one that is asked for, or all that applications have."""
    found = [
        str(row["datname"])
        for row in rows("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname")
    ]
    if name and name not in found:
        raise Failure(f"there is no database {name} here; there are: {', '.join(found)}")
    return [name] if name else [one for one in found if one != "postgres"]
