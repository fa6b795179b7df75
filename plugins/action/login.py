"""Find the user and port by which a droplet lets this operator in: an admin after the first run, root before it."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible_collections.shipshape.droplet.plugins.module_utils import way_in
from ansible_collections.shipshape.droplet.plugins.plugin_utils import droplet_facts
from ansible_collections.shipshape.droplet.plugins.plugin_utils.ssh_login import FATAL, LOGGED_IN, REFUSED, attempt
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import RECORD

#: Asked in the same breath, as it costs no trip: the environment that the droplet belongs to, what it has of services
#: that an inventory may let go of, and facts.
LOOK = (
    "echo services=$(ls /etc/pgbouncer/shipshape.ini 2>/dev/null; "
    "grep -ls 'by Shipshape' /etc/redis/redis-*.conf); "
    f"echo primary=$(cat {RECORD} 2>/dev/null); "
    f"test -e {way_in.path('armed')} && echo unproven=yes; "
    f"echo environment=$(cat /etc/shipshape/environment 2>/dev/null); {droplet_facts.LOOK}"
)
#: Seconds for a host that nobody waits for to answer; a failover must not be about the droplet that is gone.
PATIENCE = 5


def as_root(user: str, script: str) -> str:
    return f"sh -c {shlex.quote(script)}" if user == "root" else f"sudo -n sh -c {shlex.quote(script)}"


def seen(said: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(the environment, the primary and services, facts under the names that `setup` has) from the output of LOOK."""
    words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    noted = {name: words.get(name, "").strip() for name in ("environment", "primary", "services")}
    return noted, droplet_facts.facts(words)


class ActionModule(ActionBase):
    """Tries each way in turn over the connection plugin itself, so that what works stays open for the next tasks."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("users", "ports", "timeout", "required", "others"))
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
                "environment": "",
                "primary": "",
                "services": "",
                "others": {},
                "tried": [],
            }

        ports = [int(port) for port in arguments.get("ports") or []] or [connection.get_option("port") or 22]
        others = {name: self._ask(name, users, task_vars or {}) for name in arguments.get("others") or []}
        deadline = time.monotonic() + float(arguments.get("timeout", 90))
        required = bool(arguments.get("required", True))
        if not required:
            connection.set_option("timeout", PATIENCE)
        while True:
            found, tried = self._find(connection, users, ports, wait=required)
            if found or not required:
                nobody = {"user": None, "port": None, "environment": "", "primary": None, "services": ""}
                return {"changed": False, **(found or nobody), "tried": tried, "others": others}
            # A host that has answered on one port is up, and to ask it again and again is what gets an address banned.
            answered = any(word in problem for problem in tried for word in REFUSED + FATAL)
            if answered or time.monotonic() > deadline:
                raise AnsibleActionFail(self._explain(task_vars or {}, tried))
            self._display.display(
                f"{task_vars['inventory_hostname'] if task_vars else 'host'}: not there yet ({tried[0]})"
            )
            time.sleep(3)

    def _ask(self, name: str, users: list[str], task_vars: dict[str, Any]) -> str | None:
        """What a host has noted that this run may leave out; None when it does not let us in."""
        variables = task_vars["hostvars"][name]
        earlier = variables.get("shipshape_login") or {}
        gone = "user" in earlier and earlier["user"] is None  # an earlier play of this run has waited for it
        if gone or variables.get("ansible_connection", "ssh") not in ("ssh", "smart"):
            return None
        connection = connection_loader.get("ansible.builtin.ssh", self._play_context)
        known = constants.config.get_plugin_vars("connection", connection._load_name)
        connection.set_options(var_options={key: variables[key] for key in known if key in variables})
        connection.set_option("timeout", PATIENCE)
        ports = [int(variables.get(key) or 22) for key in ("hardening_ssh_port", "ansible_port")]
        found, _tried = self._find(connection, users, ports, wait=False, again=False)
        return found.get("primary")

    def _find(
        self, connection: Any, users: list[str], ports: list[int], *, wait: bool, again: bool = True
    ) -> tuple[dict[str, Any], list[str]]:
        """(who got in, by which port, and what was seen there, or nothing; what was tried before that)."""
        tried: list[str] = []
        powerless: dict[str, Any] = {}
        for port in dict.fromkeys(ports):
            for user in users:
                problem, said = attempt(connection, user, port, as_root(user, LOOK))
                if problem is None and again and "unproven=yes" in said and not self._task.check_mode:
                    # Left by a run that died. It would be taken back in the middle of this one.
                    attempt(connection, user, port, as_root(user, f"{way_in.PROGRAM} revert"))
                    return self._find(connection, users, ports, wait=wait, again=False)
                if problem is None:
                    noted, facts = seen(said)
                    found = {"user": user, "port": port, **noted, "ansible_facts": facts}
                    return found, tried
                tried.append(f"{user}, port {port}: {problem}")
                answered = any(word in problem for word in (*REFUSED, LOGGED_IN))
                if not answered and not wait:
                    if "Connection refused" in problem:
                        break  # it may listen on the next port
                    return {}, tried
                if problem.startswith(LOGGED_IN) and not powerless:
                    powerless = {"user": user, "port": port}
        if powerless:
            # Of use only with a password for sudo, which Ansible may have.
            _problem, said = attempt(connection, powerless["user"], powerless["port"], LOOK)
            noted, facts = seen(said)
            # What only root may read is not missing, it was not seen.
            powerless.update(noted, primary=None, ansible_facts=facts)
        return powerless, tried

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
