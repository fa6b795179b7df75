"""PgBouncer on this host: what it has in force, and whether the apps can log in through it."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file
from ansible_collections.shipshape.droplet.plugins.module_utils.pgbouncer_plan import ROLE, entry, label
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    SOCKET_DIRECTORY,
    Cluster,
    conninfo,
)

LOOPBACK = "127.0.0.1"


class Server(Cluster):
    """The PostgreSQL behind it, whichever version that is: Debian's psql finds the cluster by its port."""

    def __init__(self) -> None:
        super().__init__("")
        self.binaries = "/usr/bin"


def psql(arguments: List[str], environment: Mapping[str, str], user: str = "") -> subprocess.CompletedProcess[str]:
    """psql, as root or as somebody else, with hardly any environment."""
    own = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10", **environment}
    command = [*(["runuser", "-u", user, "--"] if user else []), "psql", "-XAtw", *arguments]
    return subprocess.run(command, env=own, cwd="/", capture_output=True, text=True, check=False)


def in_force(port: int) -> Optional[Dict[str, str]]:
    """PgBouncer's own answer to what its settings are; its system user may ask. None while it does not answer."""
    done = psql(["-h", SOCKET_DIRECTORY, "-p", str(port), "-U", ROLE, "-d", ROLE, "-c", "SHOW CONFIG"], {}, ROLE)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) > 1} if done.returncode == 0 else None


def same(wanted: Any, found: str) -> bool:
    """Whether a setting that it shows is the one that was written: as texts, or as numbers."""
    text = str(int(wanted) if isinstance(wanted, bool) else wanted).strip()
    try:
        return text == found.strip() or float(text) == float(found)
    except ValueError:
        return False


def differing(settings: Mapping[str, Any], found: Mapping[str, str]) -> List[str]:
    """The settings that are not in force."""
    return [
        f"{name} = {found[name]}, not {wanted}" if name in found else f"{name} is not known to this version"
        for name, wanted in sorted(settings.items())
        if not same(wanted, found.get(name, ""))
    ]


def wait_for(settings: Mapping[str, Any], port: int, seconds: float) -> List[str]:
    """Until all is in force: a reload is only asked for when systemctl returns. Returns what is not."""
    deadline = time.monotonic() + seconds
    while True:
        found = in_force(port)
        wrong = ["it does not answer"] if found is None else differing(settings, found)
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.2)


def password_of(pool: Mapping[str, Any], directory: str) -> Optional[str]:
    """The password of a pool's role: the inventory's, or the one that the host has made."""
    kept: Optional[str] = secret_file.read(os.path.join(directory, "{}.password".format(pool["role"])))
    return pool.get("password") or kept


def log_in(pool: Mapping[str, Any], port: int, password: str) -> str:
    """Log in as the app does, and ask something. Nothing, or why that is refused."""
    target = f"{conninfo(entry(pool))} host={LOOPBACK} port={port} user='{pool['role']}'"
    done = psql(["-d", target, "-c", "SELECT current_user || ' ' || current_database()"], {"PGPASSWORD": password})
    if done.returncode != 0:
        return done.stderr.strip()
    return "" if done.stdout.strip() == f"{pool['role']} {pool['database']}" else f"it led to {done.stdout.strip()}"


def refusals(pools: Sequence[Mapping[str, Any]], port: int, directory: str, seconds: float = 0) -> List[str]:
    """The pools that let nobody in, with PgBouncer's or the server's own words."""
    deadline = time.monotonic() + seconds
    left = list(pools)
    while True:
        found = []
        for pool in list(left):
            password = password_of(pool, directory)
            if password is None:
                problem = f"its password is neither in the inventory nor in {directory}/{pool['role']}.password"
            else:
                problem = log_in(pool, port, password)
            if problem:
                found.append(f"{label(pool)} (role {pool['role']}, database {pool['database']}): {problem}")
            else:
                left.remove(pool)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def journal(lines: int = 10) -> str:
    command = ["journalctl", "--unit", "pgbouncer.service", "--lines", str(lines), "--no-pager", "--quiet", "-o", "cat"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "(nothing)"


def explain(found: Sequence[str], port: int) -> str:
    """What a module fails with."""
    return (
        f"A login through PgBouncer on port {port} fails, as it would for the app:\n"
        + "\n".join(found)
        + f"\nThe end of its journal:\n{journal()}\nIs the role's password the one that PostgreSQL has? Run the role "
        "postgresql, which compares them; `pg_hba_file_rules` shows whether the line for the role pgbouncer is there."
    )
