"""Run the units module, and tell it which handler it is, if it is one."""

from __future__ import annotations

from typing import Any

from ansible.playbook.handler import Handler
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The module settles the handler's debt on the host after it has done the handler's work."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if isinstance(self._task, Handler):
            # A file notifies a handler by its name or by a topic it listens to.
            arguments["handler"] = [self._task.name, *(self._task.listen or [])]
        result: dict[str, Any] = self._execute_module(
            module_name="shipshape.droplet.units", module_args=arguments, task_vars=task_vars
        )
        return result
