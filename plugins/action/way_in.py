"""Have a droplet change the way into it, log in anew to prove it, and have it take the change back when that fails."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.shipshape.droplet.plugins.action.files import ActionModule as FilesAction
from ansible_collections.shipshape.droplet.plugins.module_utils.way_in import PROGRAM, UNIT
from ansible_collections.shipshape.droplet.plugins.plugin_utils.checks import public_key
from ansible_collections.shipshape.droplet.plugins.plugin_utils.ssh_login import (
    FATAL,
    LOGGED_IN,
    REFUSED,
    anew,
    attempt,
)

MODULE = "shipshape.droplet.way_in"
DEFAULT_REVERT_AFTER = 100


class ActionModule(FilesAction):
    """The controller's half: what it says over a new connection is the only thing that makes a change stay."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super(FilesAction, self).run(tmp, task_vars)
        task_vars = task_vars or {}
        self._require_admins()
        plan, contents = self._rendered(task_vars)
        contents[PROGRAM] = self._text("way-in")
        contents[UNIT] = self._text("shipshape-way-in-revert.service")
        arguments = {
            **self._module_args(plan, contents),
            "port": self._port,
            "revert_after": self._revert_after,
        }
        result = self._stage("open", arguments, task_vars)
        if result.get("failed") or self._task.check_mode or not result["remaining"]:
            return result
        closed = self._stage("close", arguments, task_vars)
        if closed.get("failed"):
            return closed
        for key in ("actions", "changed_files", "interrupted"):
            closed[key] = result[key] + closed[key]
        if "diff" in result:
            closed["diff"] = result["diff"] + closed.get("diff", [])
        return {**closed, "changed": True, "remaining": result["remaining"]}

    # -- arguments ----------------------------------------------------------------------------------------------------

    @property
    def _port(self) -> int:
        return int(self._task.args.get("port") or 22)

    @property
    def _revert_after(self) -> int:
        return int(self._task.args.get("revert_after") or DEFAULT_REVERT_AFTER)

    def _require_admins(self) -> None:
        """Without one usable key nobody could log in any more, whatever else is right."""
        problems = []
        for admin in self._task.args.get("admins") or []:
            faults = [public_key(str(key)) for key in admin.get("ssh_keys") or []]
            if faults and None in faults:
                return
            found = "; ".join(fault.found for fault in faults if fault) or "no key"
            problems.append(f"{admin.get('name')}: {found}")
        raise AnsibleActionFail(
            "hardening_admins has nobody with a usable ssh key, so closing root's login would lock everybody out "
            f"({', '.join(problems) or 'the list is empty'}). Give at least one: "
            'admins: [{name: deploy, ssh_keys: ["ssh-ed25519 AAAA… you@laptop"]}]'
        )

    def _text(self, name: str) -> str:
        return str(self._loader.get_text_file_contents(self._find_needle("files", name)))

    # -- the change ---------------------------------------------------------------------------------------------------

    def _stage(self, stage: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={**arguments, "stage": stage}, task_vars=task_vars
        )
        result.pop("invocation", None)
        token = result.pop("pending", "")
        if not token or result.get("failed"):
            return result
        problems = self._prove(token.strip())
        if isinstance(problems, list):
            raise AnsibleActionFail(self._take_back(arguments, task_vars, problems))
        user, port = problems
        if user:
            # Whoever made the change may have no rights any more; whoever has proven it has.
            self._connection.set_option("remote_user", user)
            self._connection.set_option("port", port)
        return {**result, "user": user, "port": port}

    def _prove(self, token: str) -> tuple[str, int] | list[str]:
        """(user, port) of the login that confirmed the change, or what stood in the way of each."""
        confirm = f"sudo -n {PROGRAM} confirm {token}"
        if self._connection.transport != "ssh":
            # The operator sits on the host itself: there is no way in to lose.
            said = self._low_level_execute_command(f"{PROGRAM} confirm {token}")
            return ("", self._port) if said["rc"] == 0 else [str(said["stderr"])]
        deadline = time.monotonic() + self._revert_after / 3
        problems: list[str] = []
        with anew(self._connection):
            while True:
                problems = []
                for admin in self._task.args["admins"]:
                    problem, _said = attempt(self._connection, str(admin["name"]), self._port, confirm)
                    if problem is None:
                        return str(admin["name"]), self._port
                    problems.append(f"{admin['name']}, port {self._port}: {problem}")
                # No waiting mends a refusal; anything else may be sshd or the firewall on its way up.
                hopeless = all(any(word in line for word in (*REFUSED, *FATAL, LOGGED_IN)) for line in problems)
                if hopeless or time.monotonic() > deadline:
                    return problems
                time.sleep(2)

    def _take_back(self, arguments: dict[str, Any], task_vars: dict[str, Any], problems: list[str]) -> str:
        """Say so to the droplet if it still hears us; otherwise it does by itself."""
        lines = ["After the change no admin could log in anew and become root:", *(f"  - {line}" for line in problems)]
        try:
            answer = self._execute_module(
                module_name=MODULE, module_args={**arguments, "stage": "revert"}, task_vars=task_vars
            )
            done = not answer.get("failed") and not answer.get("unreachable")
        except AnsibleError:
            # Cut off, or without sudo, by the very change.
            done = False
        if done:
            lines.append("Everything is as it was before: ssh, firewall, admins and bans.")
        else:
            lines.append(
                f"The droplet puts everything back by itself within {self._revert_after} s; then log in as before."
            )
        lines.append(
            "Is the private key of admins[].ssh_keys loaded (ssh-add -l), and does a firewall of your provider let the "
            "port in?"
        )
        return "\n".join(lines)
