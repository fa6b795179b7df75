"""The named settings of the hardening role, and what the active ones make of a droplet: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

Setting = Mapping[str, Any]

#: What a setting may say. `default` is false for one that is only active when it is asked for by name, `needs` is a
#: condition of the host; an entry of `files` and `way_in_files` that is `foreign` is given back to its package.
KEYS = {
    "summary", "rules", "breaks", "default", "needs", "packages", "files", "way_in_files", "units", "sshd", "sudo",
    "sysctl", "modules", "modes", "limits", "audit", "effective",
}  # fmt: skip
LISTS = ("packages", "units", "sudo", "modules", "modes", "limits", "audit", "effective")
DICTIONARIES = ("sshd", "sysctl")


def is_active(name: str, setting: Setting, skip: Iterable[str], also: Iterable[str]) -> bool:
    """Whether a setting is in force on this host. What is skipped is, even when it is also asked for."""
    wanted = setting.get("default", True) or name in also
    return bool(wanted) and name not in skip and bool(setting.get("needs", True))


def entries(files: Iterable[Mapping[str, Any]], active: bool) -> list[dict[str, Any]]:
    """Entries for the module files: as they are, or the absence of ours and the originals of those of packages."""
    found = []
    for entry in files:
        if active:
            found.append(dict(entry))
        elif entry.get("state", "file") != "directory":
            kept = {
                key: value
                for key, value in entry.items()
                if key in ("path", "mark", "unless_edited", "restart", "reload")
            }
            found.append({**kept, "state": "original" if entry.get("foreign") else "absent"})
    return found


def hardening(settings: Mapping[str, Setting], skip: Iterable[str], also: Iterable[str]) -> dict[str, Any]:
    """Everything that the active settings want, by kind; files of the others are to be absent."""
    skip, also = [str(name) for name in skip], [str(name) for name in also]
    plan: dict[str, Any] = {"active": [], "files": [], "way_in_files": []}
    plan.update({kind: [] for kind in LISTS}, **{kind: {} for kind in DICTIONARIES})
    if unknown := sorted((set(skip) | set(also)) - set(settings)):
        raise AnsibleFilterError(
            f"hardening_skip or hardening_also names {', '.join(unknown)}; there are: {', '.join(sorted(settings))}"
        )
    for name, setting in settings.items():
        if strange := sorted(set(setting) - KEYS):
            raise AnsibleFilterError(f"the setting {name} says {', '.join(strange)}, which nothing reads")
        active = is_active(name, setting, skip, also)
        for kind in ("files", "way_in_files"):
            plan[kind] += entries(setting.get(kind) or (), active)
        if not active:
            continue
        plan["active"].append(name)
        for kind in LISTS:
            plan[kind] += [item for item in setting.get(kind) or () if item not in plan[kind]]
        for kind in DICTIONARIES:
            plan[kind].update(setting.get(kind) or {})
    return plan


def sshd_lines(options: Mapping[str, Any]) -> list[str]:
    """Options as a configuration file of sshd has them; one of several values has a line for each."""
    return [
        f"{name} {value}"
        for name, values in options.items()
        for value in ([values] if isinstance(values, (str, int)) else values)
    ]


def sshd_effective(options: Mapping[str, Any]) -> list[str]:
    """The same as `sshd -T` prints it."""
    lines = (line.partition(" ") for line in sshd_lines(options))
    return [f"{name.lower()} {value}" for name, _, value in lines]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"hardening": hardening, "sshd_effective": sshd_effective, "sshd_lines": sshd_lines}
