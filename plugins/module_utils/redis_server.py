"""Instances of Redis on this host, asked by redis-cli."""

from __future__ import annotations

import subprocess
import time
from typing import Dict, List, Mapping, Optional

LOOPBACK = "127.0.0.1"


def ask(port: int, command: List[str], user: str = "", password: str = "", seconds: float = 5) -> Optional[str]:
    """What an instance answers, refusals included; None when nothing answers there."""
    login = ["--user", user, "--no-auth-warning"] if user else []
    own = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **({"REDISCLI_AUTH": password} if password else {})}
    arguments = ["redis-cli", "-h", LOOPBACK, "-p", str(port), *login, *command]
    try:
        done = subprocess.run(arguments, env=own, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = (done.stderr + done.stdout).strip()
    return None if "Could not connect" in said else said


def in_force(port: int, names: List[str], user: str, password: str) -> Optional[Dict[str, str]]:
    """Settings as the instance has them; None while it does not let us ask."""
    found: Dict[str, str] = {}
    for name in names:
        lines = (ask(port, ["CONFIG", "GET", name], user, password) or "").splitlines()
        if len(lines) != 2 or lines[0] != name:
            return None
        found[name] = lines[1]
    return found


def users(port: int, user: str, password: str) -> Optional[List[str]]:
    """Who may log in; None when we may not."""
    said = ask(port, ["ACL", "USERS"], user, password)
    return None if said is None or said.startswith(("AUTH", "WRONGPASS", "NOAUTH")) else sorted(said.splitlines())


def wait(port: int, user: str, password: str, seconds: float) -> str:
    """Until it answers and has read what it keeps. Nothing, or its last answer."""
    deadline = time.monotonic() + seconds
    while True:
        said = ask(port, ["PING"], user, password)
        if said == "PONG":
            return ""
        if time.monotonic() > deadline:
            return said or "nothing answers"
        time.sleep(0.2)


def refused(port: int, passwords: Mapping[str, str], names: List[str]) -> List[str]:
    """The users that cannot log in, with Redis' own words."""
    answers = {name: ask(port, ["PING"], name, passwords[name]) for name in names}
    return [f"{name}: {said or 'no answer'}" for name, said in answers.items() if said != "PONG"]
