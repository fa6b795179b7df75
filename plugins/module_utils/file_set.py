"""A set of files, directories and links brought to its declared state as a transaction, with the units it concerns."""

from __future__ import annotations

import base64
import fnmatch
import glob
import json
import os
import shlex
import zlib
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_actions, systemd_units
from ansible_collections.shipshape.droplet.plugins.module_utils.file_entry import (
    PLAIN,
    Entry,
    Found,
    Refused,
    kept_at,
    remove,
    run,
)


def expand_purge(module: AnsibleModule, purge: List[Dict[str, Any]], listed: List[str]) -> List[Entry]:
    """Entries that remove what lies in our directories and is not listed any more."""
    entries = []
    for item in purge:
        try:
            names = sorted(os.listdir(item["directory"]))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = os.path.join(item["directory"], name)
            if path in listed or not fnmatch.fnmatch(name, item["pattern"]) or name.startswith(".shipshape-"):
                continue
            if item.get("begins") and not Found(path).text.startswith(item["begins"]):
                continue
            spec = dict(PLAIN, state="absent", path=path, reload=item["reload"])
            entries.append(Entry(module, spec, None))
    return entries


#: Where units of ours lie, and the kinds that end with their file. What is mounted or swapped to may be in use.
UNITS = "/etc/systemd/system"
ENDING = (".service", ".timer")


def unit_of(entry: Entry) -> str:
    """The name of the unit whose file the entry removes, or nothing."""
    directory, name = os.path.split(entry.path)
    return name if entry.state == "absent" and directory == UNITS and "." in name else ""


def enablings(module: AnsibleModule, entries: List[Entry]) -> List[Entry]:
    """Entries that remove the links by which a unit was enabled whose file is removed; systemctl no longer would."""
    found = []
    for name in filter(None, map(unit_of, entries)):
        for path in sorted(glob.glob(f"{UNITS}/*.wants/{name}") + glob.glob(f"{UNITS}/*.requires/{name}")):
            found.append(Entry(module, dict(PLAIN, state="absent", path=path), None))
    return found


def transact(module: AnsibleModule, entries: List[Entry], verify: Optional[str]) -> None:
    """Apply all, or put everything back and say what refused."""
    done: List[Entry] = []
    # A tree cannot be put back from memory, so trees go only after the last check has passed.
    trees = [entry for entry in entries if entry.state == "absent" and entry.found.kind == "directory"]
    try:
        for entry in entries:
            if entry not in trees:
                done.append(entry)
                entry.apply()
        if verify:
            run(module, verify, "The new configuration")
    except (Refused, OSError) as error:
        for entry in reversed(done):
            entry.found.restore()
        module.fail_json(msg=str(error), changed_files=[])
    for entry in trees:
        entry.apply()
    for entry in entries:
        if entry.state == "original":
            remove(kept_at(entry.path))


def argument_spec() -> Dict[str, Any]:
    """What a module takes that applies a set of files."""
    return dict(
        files=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                path=dict(type="path", required=True),
                state=dict(type="str", choices=["file", "directory", "link", "absent", "original"], default="file"),
                target=dict(type="str"),
                owner=dict(type="str", default="root"),
                group=dict(type="str", default="root"),
                mode=dict(type="str"),
                validate=dict(type="str"),
                secret=dict(type="bool", default=False, no_log=False),
                once=dict(type="bool", default=False),
                mark=dict(type="str"),
                unless_edited=dict(type="bool", default=False),
                foreign=dict(type="bool", default=False),
                restart=dict(type="str"),
                reload=dict(type="str"),
            ),
        ),
        effective=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                command=dict(type="str", required=True),
                lines=dict(type="list", elements="str", required=True),
                hint=dict(type="str", default=""),
                repair=dict(type="str"),
            ),
        ),
        purge=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                directory=dict(type="path", required=True),
                pattern=dict(type="str", default="*"),
                begins=dict(type="str"),
                reload=dict(type="str"),
            ),
        ),
        verify=dict(type="str"),
        units=dict(default=[], **systemd_units.OPTIONS),
        contents=dict(type="str", default="", no_log=True),
    )


def due_units(module: AnsibleModule, entries: List[Entry], owed: List[str]) -> List[Dict[str, Any]]:
    """Units to restart or reload: of what changes now, and of what an earlier run has changed and not seen through."""
    due: Dict[Tuple[str, str], bool] = {}
    # A directory in which nothing is purged today may have been purged by a run that was cut off.
    watched = [(item["reload"], "reload", False) for item in module.params["purge"] if item["reload"]]
    watched += [
        (entry.spec[verb], verb, entry.changed)
        for entry in entries
        for verb in ("restart", "reload")
        if entry.spec[verb]
    ]
    for unit, verb, changed in watched:
        if changed or f"{verb} {unit}" in owed:
            due[verb, unit] = True
    return [dict(name=unit, state=verb + "ed", enabled=None, masked=None, optional=False) for verb, unit in due]


def rereads(entries: List[Entry], owed: List[str]) -> bool:
    """Whether systemd is to read its files again: a folder of drop-ins that is new it does not see by itself."""
    concerned = [entry for entry in entries if entry.path.startswith(UNITS + "/")]
    return any(entry.changed or "restart {}".format(entry.spec["restart"]) in owed for entry in concerned)


def lacking(module: AnsibleModule, expectation: Dict[str, Any]) -> str:
    """What a command does not say of what was declared, or nothing."""
    code, out, err = module.run_command(shlex.split(expectation["command"]))
    missing = [line for line in expectation["lines"] if line not in out.splitlines()]
    return (err.strip() or f"exit {code}") if code != 0 else ", ".join(f"missing: {line}" for line in missing)


def repair(module: AnsibleModule, expectations: List[Dict[str, Any]]) -> List[str]:
    """Reload the units that bring into force again what somebody has undone behind our back."""
    due = []
    for expectation in expectations:
        unit = expectation["repair"]
        if not unit or not module.get_bin_path(shlex.split(expectation["command"])[0]):
            continue  # without the program: check mode on a bare host
        if lacking(module, expectation) and unit not in due:
            due.append(unit)
    units = [dict(name=unit, state="reloaded", enabled=None, masked=None, optional=True) for unit in due]
    actions: List[str] = systemd_units.converge(module, units)
    return actions


def assert_effective(module: AnsibleModule, expectations: List[Dict[str, Any]]) -> None:
    """Fail when a command does not say that what was declared is in force."""
    for expectation in expectations:
        found = lacking(module, expectation)
        if found:
            module.fail_json(
                msg="What '{}' says is not what was declared: {}. {}".format(
                    expectation["command"], found, expectation["hint"]
                ).strip()
            )


def unpack(contents: str) -> Dict[str, str]:
    """The texts of the files by path, as the action plugin packs them into one argument."""
    return dict(json.loads(zlib.decompress(base64.b64decode(contents)).decode())) if contents else {}


def declared(module: AnsibleModule) -> List[Entry]:
    """The entries that the task names, and the removal of what it does not name any more."""
    contents = unpack(module.params["contents"])
    entries = [Entry(module, spec, contents.get(spec["path"])) for spec in module.params["files"]]
    return entries + expand_purge(module, module.params["purge"], [entry.path for entry in entries])


def converge(module: AnsibleModule, entries: List[Entry]) -> Dict[str, Any]:
    """Apply what differs, restart what it concerns, bring the units to their state; what a module returns of it."""
    entries = entries + enablings(module, entries)
    changes = [entry for entry in entries if entry.changed]
    owed = owed_actions.owed()
    due = due_units(module, entries, owed)
    debts = ["{} {}".format(unit["state"][:-2], unit["name"]) for unit in due]
    if changes and not module.check_mode:
        transact(module, changes, module.params["verify"])
        owed_actions.remember(debts)
    # Units may still run whose file is gone, or goes now.
    actions = systemd_units.end(module, [name for name in map(unit_of, entries) if name.endswith(ENDING)])
    actions += systemd_units.converge(module, due + module.params["units"], rereads(entries, owed))
    repairs = repair(module, module.params["effective"])
    actions += [action for action in repairs if action not in actions]
    if not module.check_mode:
        owed_actions.settle(debts)
        assert_effective(module, module.params["effective"])
    result: Dict[str, Any] = dict(
        changed=bool(changes or actions),
        changed_files=[entry.path for entry in changes],
        actions=actions,
        interrupted=[debt for debt in debts if debt in owed],
    )
    if module._diff:
        result["diff"] = [entry.diff() for entry in changes] + ([systemd_units.diff(actions)] if actions else [])
    return result
