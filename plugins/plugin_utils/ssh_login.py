"""One attempt to log in over Ansible's own ssh connection, and what its failure means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleConnectionFailure

#: What ssh says when the host answered and did not want this user; anything else means that it is not there (yet).
REFUSED = ("Permission denied", "Too many authentication failures", "No supported authentication methods")
#: How a problem begins of somebody who got in and could not do what was asked.
LOGGED_IN = "logged in, but was told: "
#: What no waiting mends.
FATAL = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "Could not resolve hostname")
#: A multiplexed channel proves nothing: it was let in before the change.
ANEW = "-o ControlMaster=no -o ControlPath=none -o StrictHostKeyChecking=accept-new -o ConnectTimeout=10"


def attempt(connection: Any, user: str, port: int, command: str) -> tuple[str | None, str]:
    """(what stood in the way in one line or None when the command ran, what the command printed)."""
    connection.set_option("remote_user", user)
    connection.set_option("port", port)
    try:
        code, out, err = connection.exec_command(command, sudoable=False)
    except AnsibleConnectionFailure as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in REFUSED + FATAL)]
        return (telling or lines or ["no answer"])[-1], ""
    if code == 0:
        return None, out.decode(errors="replace")
    return f"{LOGGED_IN}{err.decode(errors='replace').strip() or f'exit {code}'}", ""


@contextmanager
def anew(connection: Any) -> Iterator[None]:
    """Log in with connections of their own, and leave the one that is open to the tasks that follow."""
    options = ("remote_user", "port", "ssh_args")
    before = {option: connection.get_option(option) for option in options}
    connection.set_option("ssh_args", ANEW)
    try:
        yield
    finally:
        for option, value in before.items():
            connection.set_option(option, value)
