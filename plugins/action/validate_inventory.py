"""Validate the whole inventory on the controller, before anything connects to a host."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.vault import AnsibleVaultError
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible_collections.shipshape.droplet.plugins.plugin_utils.problems import Path, Unresolved, count, report
from ansible_collections.shipshape.droplet.plugins.plugin_utils.rolevars import Roles, relevant
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import GROUPS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.validate import Inventory, problems

CONNECTION_VARIABLES = {"ansible_host", "ansible_port", "ansible_connection"}
# The specs are long, and every run reads them: libyaml takes a tenth of the time, where PyYAML was built with it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = FilePath(__file__).parents[2] / "roles"


def known_roles(directory: FilePath) -> Roles:
    """The options of each role's argument specs, all entry points together."""
    roles: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.glob("*/meta/argument_specs.yml")):
        specs = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)["argument_specs"]
        roles[path.parts[-3]] = {
            name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()
        }
    return roles


def unresolved(error: Exception) -> Unresolved:
    """Why a template failed, in words that cannot hold a secret's value."""
    text = " ".join(str(error).split())
    if isinstance(error, AnsibleUndefinedVariable) and (match := re.search(r"'([^']+)' is undefined", text)):
        wanted = f"`{match[1]}` defined, in group_vars/all/vault.yml for example"
        return Unresolved(f"a template with `{match[1]}`, which is defined nowhere", wanted)
    if isinstance(error, AnsibleUndefinedVariable):
        return Unresolved("a template with something that is not defined")
    if isinstance(error, AnsibleVaultError) or "decrypt" in text:
        wanted = "the vault's password: --ask-vault-pass, or --vault-password-file"
        return Unresolved("a value of the vault that cannot be decrypted", wanted)
    if match := re.search(r"lookup plugin '([\w.]+)'", text):
        return Unresolved(f"a template whose lookup `{match[1]}` fails")
    return Unresolved(f"a template that fails ({type(error).__name__})")


def resolve(value: Any, templar: Templar) -> Any:
    """A value with its templates worked out leaf by leaf, so that one that fails does not hide the others."""
    if isinstance(value, Mapping):
        return {key: resolve(entry, templar) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [resolve(entry, templar) for entry in value]
    try:
        return templar.template(value)
    except AnsibleError as error:
        return unresolved(error)


def origin_of(value: Any) -> str:
    """File and line of a value, as far as this version of ansible-core remembers them."""
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return ""
    origin = Origin.get_tag(value)
    if origin is None or not origin.path:
        return ""
    path = os.path.relpath(origin.path)
    shown = origin.path if path.startswith("..") else path
    return f"{shown}:{origin.line_num}" if origin.line_num else shown


def locate(variables: Any, path: Path) -> str:
    """File and line of the innermost thing on the path that is there: the value, else its key, else what holds it."""
    place = ""
    value = variables
    for step in path:
        if isinstance(value, Mapping) and step in value:
            key = next(name for name in value if name == step)
            value = value[step]
            place = origin_of(value) if not isinstance(value, (Mapping, list)) else ""
            place = place or origin_of(key) or origin_of(value)
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            value = value[step]
            place = origin_of(value) or place
        else:
            break
    return place


class ActionModule(ActionBase):
    """Runs once for all hosts of the play, and connects to none."""

    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset[str]()
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        groups = variables.get("groups", {})
        hosts = dict.fromkeys(host for group in GROUPS for host in groups.get(group, ()))
        hosts.update(dict.fromkeys(variables.get("ansible_play_hosts_all", ())))
        roles = known_roles(ROLES)
        raw = {host: variables["hostvars"].raw_get(host) for host in hosts}
        inventory = Inventory(
            hosts={host: self._resolved(own, variables, roles) for host, own in raw.items()},
            groups={name: list(members) for name, members in groups.items()},
            roles=roles,
        )
        # What a template took from the vault is put right there; where that is not known, where the template stands.
        found = problems(
            inventory,
            lambda host, path: locate(inventory.hosts.get(host, {}), path) or locate(raw.get(host, {}), path),
        )
        if found:
            # Shown here, once: as the task's message it would come twice, and again for each host.
            self._display.display(f"\n{report(found)}\n", color="red")
            message = f"The inventory has {count(len(found), 'problem')}; see the list above."
            return {**result, "failed": True, "msg": message}
        message = f"The inventory is sound: {count(len(hosts), 'host')}."
        return {**result, "changed": False, "msg": message}

    def _resolved(self, own: Mapping[str, Any], task_vars: Mapping[str, Any], roles: Roles) -> dict[str, Any]:
        """A host's variables, with those worked out that the validation reads."""
        templar = self._templar.copy_with_new_env(available_variables={**own, "hostvars": task_vars["hostvars"]})
        return {
            name: resolve(value, templar) if name in CONNECTION_VARIABLES or relevant(name, roles) else value
            for name, value in own.items()
        }
