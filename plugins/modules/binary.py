#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: binary
short_description: Install one program of a release archive, by its checksum
version_added: 0.1.0
description:
  - Fetches a C(.tar.gz), verifies its SHA-256, takes one program out of it into a directory of its version, tries it,
    and then changes the link to it. A run that is cut off leaves what was there before; the version before stays.
  - Nothing is fetched while the link leads to what is declared.
options:
  name: {description: Name of the program; that of the archive's member., type: str, required: true}
  version: {description: Version that is declared., type: str, required: true}
  url:
    description: Where the archive is. C({processor}) in it becomes Debian's name of the host's, such as V(amd64).
    type: str
    required: true
  checksums:
    description: SHA-256 of the archive by processor. Where there is none for the host's, what O(checksums_url) says.
    type: dict
    default: {}
  checksums_url:
    description:
      - File with lines of C(sha256sum) for the archives of the release. It comes from where the archive comes from, so
        it shows a damaged download, but not a forged release.
    type: str
    default: ""
  path: {description: The link to the program., type: path, required: true}
  directory: {description: Where the versions lie., type: path, required: true}
  test:
    description: Arguments with which the program must end well before it is put in place.
    type: list
    elements: str
    default: []
  restart: {description: Unit that the next task of this run or of a later one restarts for it., type: str, default: ""}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Binary | Install
  shipshape.droplet.binary:
    name: traefik
    version: 3.7.15
    url: https://github.com/traefik/traefik/releases/download/v3.7.15/traefik_v3.7.15_linux_{processor}.tar.gz
    checksums: {amd64: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
    path: /usr/local/bin/traefik
    directory: /opt/traefik
    test: [version]
    restart: traefik.service
"""

RETURN = r"""
checksum:
  description: SHA-256 of the archive that the program is from. Empty in check mode when it is not known yet.
  type: str
  returned: success
program:
  description: Where the program is.
  type: str
  returned: success
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_actions, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.file_entry import put_link

#: Beside the program: the checksum of its archive. Written last, so that a half-made version has none.
NOTE = "archive.sha256"


def installed_checksum(directory: str) -> str:
    try:
        with open(os.path.join(directory, NOTE), encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def link_target(path: str) -> Optional[str]:
    return os.readlink(path) if os.path.islink(path) else None


def processor() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def open_url(module: AnsibleModule, url: str) -> Any:
    response, info = fetch_url(module, url, timeout=60)
    if response is None or info["status"] != 200:
        module.fail_json(
            msg="{} cannot be fetched from {}: {}. The program that is installed stays. Look at the droplet's way to "
            "that address, or name a mirror that it reaches.".format(module.params["name"], url, info["msg"])
        )
    return response


def published_checksum(module: AnsibleModule) -> str:
    url = module.params["checksums_url"]
    if not url:
        module.fail_json(msg="{}: give a checksum, or where checksums are published".format(module.params["name"]))
    text = open_url(module, url).read(1024 * 1024).decode("utf-8", "replace")
    wanted = module.params["url"].rpartition("/")[2]
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 2 and parts[1].lstrip("*").rpartition("/")[2] == wanted:
            return str(parts[0]).lower()
    module.fail_json(msg=f"{url} names no checksum of {wanted}")
    return ""


def download(module: AnsibleModule, wanted: str, archive: str) -> None:
    response = open_url(module, module.params["url"])
    digest = hashlib.sha256()
    with open(archive, "wb") as handle:
        while True:
            chunk = response.read(1024 * 1024)
            if not chunk:
                break
            digest.update(chunk)
            handle.write(chunk)
    found = digest.hexdigest()
    if found != wanted:
        module.fail_json(
            msg="What {} gave is not what is declared: its SHA-256 is {}, wanted is {}. It was thrown away, and the "
            "program that is installed stays. Compare with its own page before you change the checksum.".format(
                module.params["url"], found, wanted
            )
        )


def extract(module: AnsibleModule, archive: str, program: str) -> None:
    name = module.params["name"]
    try:
        with tarfile.open(archive) as bundle:
            for member in bundle:
                # Its text only: nothing that a member says of paths, owners or modes is followed.
                if member.isfile() and member.name.rpartition("/")[2] == name:
                    source = bundle.extractfile(member)
                    if source is None:
                        break
                    with open(program, "wb") as target:
                        shutil.copyfileobj(source, target, 1024 * 1024)
                        os.fchmod(target.fileno(), 0o755)
                        target.flush()
                        os.fsync(target.fileno())
                    return
    except (tarfile.TarError, EOFError, OSError) as error:
        module.fail_json(msg="{} is no archive: {}".format(module.params["url"], error))
    module.fail_json(msg="{} holds no program {}".format(module.params["url"], name))


def install(module: AnsibleModule, wanted: str, home: str) -> None:
    """The version's directory, whole or not at all."""
    name, directory = module.params["name"], module.params["directory"]
    os.makedirs(directory, mode=0o755, exist_ok=True)
    work = tempfile.mkdtemp(prefix=".new-", dir=directory)
    try:
        archive, program = os.path.join(work, "archive"), os.path.join(work, name)
        download(module, wanted, archive)
        extract(module, archive, program)
        os.unlink(archive)
        if module.params["test"]:
            try:
                code, out, err = module.run_command([program] + module.params["test"], handle_exceptions=False)
            except OSError as error:
                code, out, err = 126, "", str(error)
            if code != 0:
                module.fail_json(
                    msg="The program from {} does not run here ({}): {}. Is it for this processor?".format(
                        module.params["url"], os.uname().machine, (err or out).strip()[-500:]
                    )
                )
        with open(os.path.join(work, NOTE), "w", encoding="ascii") as handle:
            handle.write(wanted + "\n")
        os.chmod(work, 0o755)
        if os.path.isdir(home):
            shutil.rmtree(home)
        os.rename(work, home)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def tidy(directory: str, keep: List[str]) -> None:
    """Remove versions other than this and the one before, and what interrupted runs left."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if path not in keep and os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)


def converge(module: AnsibleModule) -> Dict[str, Any]:
    params = module.params
    params["url"] = params["url"].replace("{processor}", processor())
    home = os.path.join(params["directory"], params["version"])
    program = os.path.join(home, params["name"])
    declared, there = str(params["checksums"].get(processor()) or "").lower(), installed_checksum(home)
    before = link_target(params["path"])
    complete = bool(there) and there == (declared or there) and os.path.exists(program)
    result = {"changed": not complete or before != program, "checksum": declared or there, "program": program}
    if module._diff and result["changed"]:
        after = "{} {}\n".format(params["version"], declared or there or "(as published)")
        old = "(nothing)\n"
        if before:
            folder = os.path.dirname(before)
            old = "{} {}\n".format(os.path.basename(folder), installed_checksum(folder) or "(unknown)")
        result["diff"] = {
            "before_header": params["path"],
            "after_header": params["path"],
            "before": old,
            "after": after,
        }
    if not result["changed"] or module.check_mode:
        return result
    if not complete:
        wanted = declared or published_checksum(module)
        install(module, wanted, home)
        result["checksum"] = wanted
    if params["restart"] and before:
        # Noted before it is done, so that a run cut off here is made good by the next.
        owed_actions.remember(["restart {}".format(params["restart"])])
    put_link(params["path"], program)
    tidy(params["directory"], [home] + ([os.path.dirname(before)] if before else []))
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            version=dict(type="str", required=True),
            url=dict(type="str", required=True),
            checksums=dict(type="dict", default={}),
            checksums_url=dict(type="str", default=""),
            path=dict(type="path", required=True),
            directory=dict(type="path", required=True),
            test=dict(type="list", elements="str", default=[]),
            restart=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    if not re.fullmatch(r"[A-Za-z0-9._+-]+", module.params["version"]):
        module.fail_json(msg="'{}' is no version".format(module.params["version"]))
    for key, value in module.params["checksums"].items():
        if not re.fullmatch(r"([0-9a-fA-F]{64})?", str(value or "")):
            module.fail_json(msg=f"checksums.{key} is '{value}'; it must be a SHA-256: 64 hexadecimal digits")
    module.exit_json(**converge(module))


if __name__ == "__main__":
    main()
