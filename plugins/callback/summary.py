"""After the recap: what changed on each droplet, and in what state it is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: summary
type: aggregate
short_description: Say at the end of a run what changed and how each droplet is
version_added: 0.1.0
description:
  - Collects the names of the tasks that changed something and the lines of M(shipshape.droplet.droplet_report), and
    prints both after the recap, so that they stand at the bottom of the terminal.
requirements:
  - Enabled by C(callbacks_enabled = shipshape.droplet.summary) in ansible.cfg
"""

#: More changes than these are counted, not listed: a first run changes nearly everything.
LISTED = 12


class CallbackModule(CallbackBase):
    """Only listens, and prints once."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "shipshape.droplet.summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[str, list[str]] = {}
        self._reports: dict[str, list[str]] = {}
        self._check = False

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._check = self._check or bool(task.check_mode)

    def v2_runner_on_ok(self, result: Any) -> None:
        host, data = result.host.get_name(), result.result
        if data.get("changed"):
            self._changed.setdefault(host, []).append(result.task.get_name().replace("shipshape.droplet.", ""))
        if result.task.action == "shipshape.droplet.droplet_report" and data.get("lines"):
            self._reports[host] = list(data["lines"])

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for host in sorted(set(self._changed) | set(self._reports)):
            changed = self._changed.get(host, [])
            verb = "would change" if self._check else "changed"
            self._display.banner(f"{host}: {len(changed) or 'nothing'} {verb}")
            for name in changed[:LISTED]:
                self._display.display(f"  {verb:<12} {name}")
            if len(changed) > LISTED:
                self._display.display(f"  …            and {len(changed) - LISTED} more")
            for line in self._reports.get(host, []):
                self._display.display(f"  {line}")
