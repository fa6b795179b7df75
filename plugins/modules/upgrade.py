#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade
short_description: Upgrade the packages of a host, some of the held ones included, and restart what runs on old files
version_added: 0.1.0
description:
  - Takes the newest version of every installed package, removes none, and keeps configuration files as they are.
    Of the packages with a hold it takes those that are named; the holds stay.
  - Restarts the services that still use a file which an upgrade has replaced.
  - In check mode fetches the package lists into a directory of its own, says what would be upgraded, changes nothing.
options:
  held:
    description: Packages to upgrade in spite of their hold. One that is not installed is passed over.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: Seconds to wait for another apt or dpkg to finish.
    type: int
    default: 600
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Packages | Upgrade
  shipshape.droplet.upgrade:
    held: [docker.io, containerd]
"""

RETURN = r"""
packages:
  description: What was (or in check mode would be) upgraded or added, such as C(docker.io 20.10.24 -> 20.10.25).
  type: list
  elements: str
  returned: always
restarted:
  description: Services that were restarted because they used a replaced file.
  type: list
  elements: str
  returned: always
outdated:
  description: What uses replaced files until the next reboot, as restarting it would cut everybody off.
  type: list
  elements: str
  returned: always
reboot:
  description: Why the host has to be rebooted; empty when it need not be.
  type: str
  returned: always
"""

import os
import re
import shutil
import tempfile
from typing import Dict, List, Set

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import apt, umask

SIMULATED = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)")
#: Who is logged in, or everybody who talks to everybody, would be cut off: these stay as they are until a reboot.
NOT_RESTARTED = re.compile(
    r"(dbus|dbus-broker|systemd-logind|polkit|getty@.*|serial-getty@.*|user@.*|init)\.(service|scope)"
)
PROGRAMS = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/")
UPGRADE = ["upgrade", "--with-new-pkgs"]
HELD = ["install", "--only-upgrade", "--no-remove", "--no-install-recommends", "--allow-change-held-packages"]


def planned(simulation: str) -> Dict[str, str]:
    """By package, what `apt-get --simulate` would do: 'old -> new', or the version alone where there is none yet."""
    found = {}
    for line in simulation.splitlines():
        match = SIMULATED.match(line)
        if match:
            found[match.group(1)] = " -> ".join(version for version in match.group(2, 3) if version)
    return found


def replaced_files(maps: str) -> Set[str]:
    """Programs and libraries that a process has mapped and that are not on the disk any more."""
    names = (
        line.split(None, 5)[5] for line in maps.splitlines() if line.endswith(" (deleted)") and line.count(" ") > 5
    )
    return {name[: -len(" (deleted)")] for name in names if name.startswith(PROGRAMS)}


def unit_of(cgroup: str) -> str:
    """The service that a process belongs to, by /proc/PID/cgroup; empty for a container's or a session's."""
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            parts = [part for part in path.split("/") if part]
            if parts and parts[-1].endswith(".service") and "user.slice" not in parts:
                return parts[-1]
    return ""


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:  # a process that has ended meanwhile
        return ""


def outdated_units() -> Set[str]:
    """Services of which a process uses a replaced file. A container brings its own, which are no matter here."""
    units = set()
    for process in os.listdir("/proc"):
        if process.isdigit() and replaced_files(read(f"/proc/{process}/maps")):
            units.add("init.scope" if process == "1" else unit_of(read(f"/proc/{process}/cgroup")))
    return units - {""}


def simulate(module: AnsibleModule, held: List[str], options: List[str]) -> Dict[str, str]:
    found = planned(apt.get(module, options + ["--simulate"] + UPGRADE))
    if held:
        found.update(planned(apt.get(module, options + ["--simulate"] + HELD + held)))
    return found


def reboot_reason() -> str:
    if not os.path.exists("/run/reboot-required"):
        return ""
    names = sorted(set(read("/run/reboot-required.pkgs").split()))
    return "the upgrade of {} asks for it".format(", ".join(names) or "a package")


def restart(module: AnsibleModule, units: List[str]) -> None:
    for unit in units:
        code, _out, err = module.run_command(["systemctl", "restart", unit])
        if code != 0:
            module.fail_json(
                msg=f"The packages are upgraded, but {unit} does not start again: {err.strip()}\n"
                f"Look at 'journalctl --unit {unit}' on the host. The hosts after this one were left alone."
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            held=dict(type="list", elements="str", default=[]), lock_timeout=dict(type="int", default=600)
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    timeout = module.params["lock_timeout"]
    held = apt.installed(module, module.params["held"])
    if module.check_mode:
        lists = tempfile.mkdtemp(prefix="shipshape-lists-")
        try:
            options = [
                "-o",
                f"Dir::State::Lists={lists}",
                "-o",
                f"Dir::Cache={lists}/cache",
                "-o",
                "APT::Sandbox::User=root",
            ]
            apt.get(module, options + ["update"], timeout)
            packages = simulate(module, held, options)
        finally:
            shutil.rmtree(lists)
    else:
        apt.get(module, ["update"], timeout)
        packages = simulate(module, held, [])
    restarted: List[str] = []
    if packages and not module.check_mode:
        automatic = apt.automatic(module, held)
        states = apt.states(module, held)
        apt.get(module, UPGRADE, timeout)
        if held:
            try:
                apt.get(module, HELD + held, timeout)
            finally:
                # apt takes a hold away from what it upgrades, and from what it began to upgrade.
                apt.hold(module, [name for name in held if states[name].startswith("h")], timeout)
            apt.mark_automatic(module, automatic)
    outdated = set() if module.check_mode else outdated_units()
    waiting = {unit for unit in outdated if NOT_RESTARTED.fullmatch(unit)}
    restarted = sorted(outdated - waiting)
    restart(module, restarted)
    lines = [f"{name} {versions}" for name, versions in sorted(packages.items())]
    result = dict(
        changed=bool(lines or restarted),
        packages=lines,
        restarted=restarted,
        outdated=sorted(waiting),
        reboot=reboot_reason(),
    )
    if module._diff:
        result["diff"] = [{"before": "", "after": "".join(line + "\n" for line in lines), "after_header": "upgrades"}]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
