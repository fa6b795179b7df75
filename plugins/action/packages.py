"""Spare the trip when the play's common transaction has already dealt with all that a role asks for."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

MODULE = "shipshape.droplet.packages"


class ActionModule(ActionBase):
    """A site run installs the packages of all roles at once; each role then finds its own among them."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        facts = (task_vars or {}).get("ansible_facts") or {}
        seen = facts.get("shipshape_packages") or {"names": [], "sources": [], "held": []}
        names = [str(name) for name in self._task.args.get("names") or []]
        sources = [source["name"] for source in self._task.args.get("sources") or []]
        held = [str(name) for name in self._task.args.get("held") or []]
        if all(set(asked) <= set(seen[key]) for key, asked in (("names", names), ("sources", sources), ("held", held))):
            return {
                "changed": False,
                "installed": [],
                "held": [],
                "msg": "All were dealt with by an earlier transaction of this run.",
            }
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=dict(self._task.args), task_vars=task_vars
        )
        if not result.get("failed"):
            known = {
                "names": sorted({*seen["names"], *names}),
                "sources": sorted({*seen["sources"], *sources}),
                "held": sorted({*seen["held"], *held}),
            }
            result["ansible_facts"] = {"shipshape_packages": known}
        return result
