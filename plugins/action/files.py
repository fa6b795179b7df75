"""Render all files of a role on the controller and have the droplet apply them in one trip.

Also the action of every other module that takes a set of files beside what it is for.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

#: What an entry may say; the module checks the types, this only catches a key nobody reads.
ENTRY_KEYS = {
    "path", "state", "template", "content", "source", "vars", "target", "owner", "group", "mode",
    "validate", "secret", "once", "mark", "unless_edited", "foreign", "restart", "reload",
}  # fmt: skip
#: What makes up a set of files; any other argument is the module's own, which it checks.
FILE_SET = ("files", "purge", "verify", "units", "effective")


class ActionModule(ActionBase):
    """Everything that needs the controller (templates, files); the module does the rest."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        plan, contents = self._rendered(task_vars or {})
        result: dict[str, Any] = self._execute_module(
            module_name=self._task.resolved_action,
            module_args=self._module_args(plan, contents),
            task_vars=task_vars,
        )
        result.pop("invocation", None)
        return result

    def _rendered(self, task_vars: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """(the entries as the module takes them, the text of each file by its path)."""
        entries = self._task.args.get("files") or []
        if not isinstance(entries, list):
            raise AnsibleActionFail(f"'files' is a list of entries; found a {type(entries).__name__}")
        contents: dict[str, str] = {}
        plan: list[dict[str, Any]] = []
        for number, entry in enumerate(entries):
            self._check(number, entry)
            content = self._content(entry, task_vars)
            if content is not None:
                contents[str(entry["path"])] = content
            plan.append({k: v for k, v in entry.items() if k not in {"template", "content", "source", "vars"}})
        return plan, contents

    def _module_args(self, plan: list[dict[str, Any]], contents: dict[str, str]) -> dict[str, Any]:
        return {
            **{key: value for key, value in self._task.args.items() if key not in FILE_SET},
            "files": plan,
            "purge": self._task.args.get("purge") or [],
            "verify": self._task.args.get("verify"),
            "units": self._task.args.get("units") or [],
            "effective": self._task.args.get("effective") or [],
            # One opaque, never logged argument: the contents stay out of the system log and of -vvv,
            # while the diff of what is not secret can still be shown.
            "contents": base64.b64encode(zlib.compress(json.dumps(contents).encode())).decode(),
        }

    def _check(self, number: int, entry: Any) -> None:
        if not isinstance(entry, dict) or not entry.get("path"):
            raise AnsibleActionFail(f"files[{number}] needs a path; found {entry!r}")
        unknown = sorted(set(entry) - ENTRY_KEYS)
        if unknown:
            raise AnsibleActionFail(
                f"files[{number}] ({entry['path']}): unknown {unknown}; known: {sorted(ENTRY_KEYS)}"
            )
        given = [key for key in ("template", "content", "source") if entry.get(key) is not None]
        wants_content = entry.get("state", "file") == "file"
        if wants_content and len(given) != 1:
            raise AnsibleActionFail(
                f"files[{number}] ({entry['path']}): give one of template, content, source; found {given}"
            )
        if not wants_content and given:
            raise AnsibleActionFail(
                f"files[{number}] ({entry['path']}): {given[0]} does not go with state {entry['state']}"
            )

    def _content(self, entry: dict[str, Any], task_vars: dict[str, Any]) -> str | None:
        if entry.get("content") is not None:
            return str(entry["content"])
        if entry.get("source"):
            return str(self._loader.get_text_file_contents(self._find(entry, "files", "source")))
        if entry.get("template"):
            return self._render(self._find(entry, "templates", "template"), entry, task_vars)
        return None

    def _find(self, entry: dict[str, Any], folder: str, key: str) -> str:
        try:
            return str(self._find_needle(folder, entry[key]))
        except AnsibleError as error:
            raise AnsibleActionFail(f"{entry['path']}: {error}") from error

    def _render(self, source: str, entry: dict[str, Any], task_vars: dict[str, Any]) -> str:
        folder = os.path.dirname(source)
        variables = dict(task_vars, **(entry.get("vars") or {}))
        templar = self._templar.copy_with_new_env(searchpath=[folder], available_variables=variables)
        template = trust_as_template(self._loader.get_text_file_contents(source))
        try:
            text = templar.template(
                template, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": True}
            )
        except AnsibleError as error:
            raise AnsibleActionFail(f"{entry['path']}: cannot render {os.path.basename(source)}: {error}") from error
        return "" if text is None else str(text)
