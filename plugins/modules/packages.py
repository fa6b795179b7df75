#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install packages and their sources in one apt transaction
version_added: 0.1.0
description:
  - Looks up what is installed by one C(dpkg-query), which takes a tenth of the time of opening apt's cache, and asks
    apt only for what is missing. In check mode nothing but C(dpkg) is asked, so a bare host without package lists can
    be checked.
  - Waits for cloud-init and for the dpkg lock, finishes an interrupted dpkg, and retries downloads.
  - A play that installs the packages of several roles in one task spares each role's own task its trip.
options:
  names:
    description: Packages that must be installed, in any version.
    type: list
    elements: str
    default: []
  held:
    description:
      - Packages on which a hold is put, so that C(apt-get upgrade) and unattended-upgrades leave them as they are.
        One that is not installed is passed over; a hold that somebody else has put stays.
    type: list
    elements: str
    default: []
  sources:
    description: Package sources to add, one deb822 file and key each.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: File name without its suffix., type: str, required: true}
      uris: {description: Address of the repository., type: str, required: true}
      suites: {description: Suites., type: str, required: true}
      components: {description: Components. Left out for a flat repository., type: str, default: ""}
      key_url: {description: Where its armoured key is fetched from., type: str, required: true}
      key_fingerprints:
        description: Fingerprints of which each primary key in that file must be one. Empty accepts any key.
        type: list
        elements: str
        default: []
      pin: {description: Priority of all its packages. Left out, apt's default of 500., type: int}
  reasons:
    description: By the names of packages, who needs them and what to do, which is said when no source has one.
    type: dict
    default: {}
  postgresql:
    description:
      - Major version of PostgreSQL that the host is to have. Nothing is installed on a host where a cluster of another
        version is in use, since the package would start an empty one beside it.
    type: str
    default: ""
  cache_valid_time:
    description: Age in seconds up to which package lists are taken as they are.
    type: int
    default: 3600
  lock_timeout:
    description: Seconds to wait for cloud-init and for another apt or dpkg to finish.
    type: int
    default: 600
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Packages | Install those of all roles
  shipshape.droplet.packages:
    names: "{{ nginx_export_packages + postgresql_export_packages }}"
    sources: "{{ postgresql_export_sources }}"
"""

RETURN = r"""
installed:
  description: Packages that were (or in check mode would be) installed.
  type: list
  elements: str
  returned: always
held:
  description: Packages that were (or in check mode would be) held.
  type: list
  elements: str
  returned: always
"""

import base64
import hashlib
import os
import time
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.shipshape.droplet.plugins.module_utils import apt, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import another_version

LISTS = "/var/lib/apt/lists"


def missing_packages(names: List[str], states: Dict[str, str]) -> List[str]:
    """Those of the names that dpkg does not have as installed, in their order."""
    return [name for name in dict.fromkeys(names) if not apt.is_installed(states.get(name, ""))]


def packages_to_hold(names: List[str], states: Dict[str, str]) -> List[str]:
    """Those that are installed and have no hold yet."""
    return [name for name in dict.fromkeys(names) if apt.is_installed(states.get(name, "")) and states[name][0] != "h"]


def dearmour(text: str) -> bytes:
    """The packets in an armoured OpenPGP block (its checksum line left out)."""
    body = text.split("-----BEGIN PGP PUBLIC KEY BLOCK-----", 1)[1].split("-----END", 1)[0]
    lines = body.strip("\r\n").splitlines()
    start = next((number + 1 for number, line in enumerate(lines) if not line.strip()), 0)
    return base64.b64decode("".join(line for line in lines[start:] if not line.startswith("=")))


def packets(data: bytes) -> List[Tuple[int, bytes]]:
    """(tag, body) of every OpenPGP packet (RFC 4880, 4.2)."""
    found = []
    at = 0
    while at < len(data):
        head = data[at]
        if head & 0x40:
            tag, first = head & 0x3F, data[at + 1]
            if first < 192:
                length, at = first, at + 2
            elif first < 224:
                length, at = ((first - 192) << 8) + data[at + 2] + 192, at + 3
            else:
                length, at = int.from_bytes(data[at + 2 : at + 6], "big"), at + 6
        else:
            tag, size = (head >> 2) & 0x0F, 1 << (head & 3)
            length, at = int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
        found.append((tag, data[at : at + length]))
        at += length
    return found


def fingerprints(key: str) -> List[str]:
    """Fingerprints of the primary keys in an armoured key file (version 4 keys)."""
    data = b"".join(
        dearmour("-----BEGIN PGP PUBLIC KEY BLOCK-----" + block)
        for block in key.split("-----BEGIN PGP PUBLIC KEY BLOCK-----")[1:]
    )
    return [
        hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
        for tag, body in packets(data)
        if tag == 6
    ]


def source_files(source: Dict[str, Any]) -> Dict[str, str]:
    """Path and text of the files that make a source, its key left out."""
    lines = ["# Written by Shipshape.", "Types: deb", "URIs: " + source["uris"], "Suites: " + source["suites"]]
    if source["components"]:
        lines.append("Components: " + source["components"])
    lines.append("Signed-By: " + key_path(source))
    files = {"/etc/apt/sources.list.d/{}.sources".format(source["name"]): "\n".join(lines) + "\n"}
    if source["pin"] is not None:
        host = source["uris"].split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]
        pin = f"# Written by Shipshape.\nPackage: *\nPin: origin {host}\nPin-Priority: {source['pin']}\n"
        files["/etc/apt/preferences.d/{}".format(source["name"])] = pin
    return files


def key_path(source: Dict[str, Any]) -> str:
    return "/etc/apt/keyrings/{}.asc".format(source["name"])


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".shipshape", "w", encoding="utf-8") as handle:
        handle.write(text)
    os.chmod(path + ".shipshape", 0o644)
    os.replace(path + ".shipshape", path)


def fetch_key(module: AnsibleModule, source: Dict[str, Any]) -> str:
    for attempt in range(4):
        response, info = fetch_url(module, source["key_url"], timeout=30)
        if info["status"] == 200:
            key = response.read().decode("utf-8", "replace")
            break
        time.sleep(2**attempt)
    else:
        module.fail_json(
            msg="The key of the package source '{}' could not be fetched from {}: {}".format(
                source["name"], source["key_url"], info["msg"]
            )
        )
    wanted = [fingerprint.replace(" ", "").upper() for fingerprint in source["key_fingerprints"]]
    found = fingerprints(key)
    if not found or (wanted and not set(found) <= set(wanted)):
        module.fail_json(
            msg="The key at {} is not the one of '{}': wanted {}, found {}. Find out who answers there.".format(
                source["key_url"], source["name"], ", ".join(wanted), ", ".join(found) or "no key"
            )
        )
    return str(key)


def wait_for_first_boot(module: AnsibleModule, timeout: int) -> None:
    """cloud-init installs and upgrades for minutes after the first boot; its result file says when it is through."""
    if not os.path.isdir("/run/cloud-init") or os.path.exists("/run/cloud-init/disabled"):
        return
    deadline = time.monotonic() + timeout
    while not os.path.exists("/run/cloud-init/result.json"):
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"cloud-init has not finished within {timeout} s; see 'cloud-init status --long' on the host."
            )
        time.sleep(2)


def lists_age() -> float:
    """Seconds since the package lists were fetched; endless when there are none."""
    try:
        if not any(name.endswith(("Packages", "Packages.lz4", "InRelease")) for name in os.listdir(LISTS)):
            return float("inf")
        stamp = "/var/lib/apt/periodic/update-success-stamp"
        newest = max(os.path.getmtime(path) for path in (LISTS + "/partial", LISTS, stamp) if os.path.exists(path))
    except (FileNotFoundError, ValueError):
        return float("inf")
    return time.time() - newest


def main() -> None:
    source_options = dict(
        name=dict(type="str", required=True),
        uris=dict(type="str", required=True),
        suites=dict(type="str", required=True),
        components=dict(type="str", default=""),
        key_url=dict(type="str", required=True, no_log=False),
        key_fingerprints=dict(type="list", elements="str", default=[], no_log=False),
        pin=dict(type="int"),
    )
    module = AnsibleModule(
        argument_spec=dict(
            names=dict(type="list", elements="str", default=[]),
            held=dict(type="list", elements="str", default=[]),
            sources=dict(type="list", elements="dict", default=[], options=source_options),
            reasons=dict(type="dict", default={}),
            postgresql=dict(type="str", default=""),
            cache_valid_time=dict(type="int", default=3600),
            lock_timeout=dict(type="int", default=600),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    refusal = another_version(module.params["postgresql"]) if module.params["postgresql"] else ""
    if refusal:
        module.fail_json(msg=refusal)
    timeout = module.params["lock_timeout"]
    held = module.params["held"]
    states = apt.states(module, list(dict.fromkeys(module.params["names"] + held)))
    missing = missing_packages(module.params["names"], states)
    # What comes with the missing ones will be there to hold.
    unheld = [name for name in held if states.get(name, "")[:1] != "h"] if missing else packages_to_hold(held, states)
    wanted_files = {path: text for source in module.params["sources"] for path, text in source_files(source).items()}
    changed_files = [path for path, text in wanted_files.items() if read(path) != text]
    keyless = [source for source in module.params["sources"] if not os.path.exists(key_path(source))]

    diff = [
        {"before_header": path, "after_header": path, "before": read(path), "after": wanted_files[path]}
        for path in changed_files
    ]
    diff += (
        [{"before": "", "after": "".join(name + "\n" for name in missing), "after_header": "packages"}]
        if missing
        else []
    )
    diff += (
        [{"before": "", "after": "".join(name + "\n" for name in unheld), "after_header": "holds"}] if unheld else []
    )
    changes = bool(missing or changed_files or keyless)
    result: Dict[str, Any] = dict(changed=changes or bool(unheld), installed=missing, held=unheld)
    if module._diff:
        result["diff"] = diff
    if changes and not module.check_mode:
        wait_for_first_boot(module, timeout)
        for source in keyless:
            write(key_path(source), fetch_key(module, source))
        for path in changed_files:
            write(path, wanted_files[path])
        if os.path.isdir("/var/lib/dpkg/updates") and os.listdir("/var/lib/dpkg/updates"):
            module.run_command(["dpkg", "--configure", "-a"], environ_update=apt.ENVIRONMENT)
        if changed_files or keyless or lists_age() > module.params["cache_valid_time"]:
            apt.get(module, ["update"], timeout)
        if missing:
            apt.get(module, ["install", "--no-install-recommends"] + missing, timeout, module.params["reasons"])
    if unheld and not module.check_mode:
        result["held"] = packages_to_hold(held, apt.states(module, held))
        apt.hold(module, result["held"], timeout)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
