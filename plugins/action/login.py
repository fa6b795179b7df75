"""Find the user and port by which a droplet lets this operator in: an admin after the first run, root before it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

#: What ssh says when the host answered and did not want this user; anything else means that it is not there (yet).
REFUSED = ("Permission denied", "Too many authentication failures", "No supported authentication methods")
#: What no waiting mends.
FATAL = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "Could not resolve hostname")


class ActionModule(ActionBase):
    """Tries each way in turn over the connection plugin itself, so that what works stays open for the next tasks."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("users", "ports", "timeout", "fresh", "become"))
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self._task.args
        users = list(dict.fromkeys(str(user) for user in arguments.get("users") or []))
        if not users:
            raise AnsibleActionFail("'users' is the list of users to try, first the one that is wanted; found none")
        connection = self._connection
        if connection.transport != "ssh":
            return {
                "changed": False,
                "user": connection.get_option("remote_user", task_vars),
                "port": None,
                "tried": [],
            }

        ports = [int(port) for port in arguments.get("ports") or []] or [connection.get_option("port") or 22]
        if arguments.get("fresh"):
            # A multiplexed channel proves nothing: it was let in before the change.
            connection.set_option(
                "ssh_args", "-o ControlMaster=no -o ControlPath=none -o StrictHostKeyChecking=accept-new"
            )
        command = "sudo -n true" if arguments.get("become") else "true"

        deadline = time.monotonic() + float(arguments.get("timeout", 90))
        while True:
            tried: list[str] = []
            waiting = False
            for port in dict.fromkeys(ports):
                for user in users:
                    problem = self._attempt(user, port, command)
                    if problem is None:
                        return {"changed": False, "user": user, "port": port, "tried": tried}
                    tried.append(f"{user}, port {port}: {problem}")
                    waiting = waiting or not any(word in problem for word in REFUSED + FATAL)
            if not waiting or time.monotonic() > deadline:
                raise AnsibleActionFail(self._explain(task_vars or {}, tried))
            self._display.display(
                f"{task_vars['inventory_hostname'] if task_vars else 'host'}: not there yet ({tried[0]})"
            )
            time.sleep(3)

    def _attempt(self, user: str, port: int, command: str) -> str | None:
        """None when the command ran; else what stood in the way, in one line."""
        connection = self._connection
        connection.set_option("remote_user", user)
        connection.set_option("port", port)
        try:
            code, _out, err = connection.exec_command(command, sudoable=False)
        except AnsibleConnectionFailure as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            telling = [line for line in lines if any(word in line for word in REFUSED + FATAL)]
            return (telling or lines or ["no answer"])[-1]
        if code == 0:
            return None
        return f"logged in, but '{command}' failed: {err.decode(errors='replace').strip() or f'exit {code}'}"

    def _explain(self, task_vars: dict[str, Any], tried: list[str]) -> str:
        host = task_vars.get("inventory_hostname", "the host")
        address = self._connection.get_option("host") or host
        lines = [f"Nobody could log in to {host} ({address}):", *(f"  - {line}" for line in tried)]
        if any(word in line for line in tried for word in FATAL):
            lines.append(
                "A changed host key means another machine answers there. If it was rebuilt, remove its old key: "
                f"ssh-keygen -R {address}"
            )
        elif any(word in line for line in tried for word in REFUSED):
            lines.append(
                "The host answers but accepts none of the keys offered. Check that the private key of admins[].ssh_keys"
            )
            lines.append(
                "is loaded (ssh-add -l) or set as ansible_ssh_private_key_file, then try: "
                f"ssh {tried[0].split(',')[0]}@{address}"
            )
        else:
            lines.append(
                "The host does not answer. Is ansible_host right, is the droplet running, does a cloud firewall let "
                "the port in?"
            )
        return "\n".join(lines)
