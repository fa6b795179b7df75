"""Read a droplet's state by the module and put it into words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.shipshape.droplet.plugins.plugin_utils import report

CALLBACK = "shipshape.droplet.summary"


class ActionModule(ActionBase):
    """The words are made on the controller, whose clock and wording they share with the callback."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(
            module_name="shipshape.droplet.droplet_report", module_args=dict(self._task.args), task_vars=task_vars
        )
        if not result.get("failed"):
            arguments = self._task.args
            result["lines"] = report.lines(
                result,
                arguments.get("urls") or [],
                bool(arguments.get("backup_state")),
                datetime.now(UTC),
                replicated=bool(arguments.get("replicas")),
            )
            # Without the callback (a user's own ansible.cfg) the task itself has to show them.
            result["_ansible_verbose_always"] = CALLBACK not in constants.config.get_config_value("CALLBACKS_ENABLED")
        return result
