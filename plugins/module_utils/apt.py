"""apt and dpkg as a program asks them: no questions, patience with whoever holds a lock, retried downloads."""

from __future__ import annotations

import re
import time
from typing import Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "LC_ALL": "C.UTF-8"}
BUSY = ("Could not get lock", "Unable to lock", "is another process using it", "locked by another process")


def states(module: AnsibleModule, names: List[str]) -> Dict[str, str]:
    """What dpkg says of each package it knows: what is wanted and what is, such as 'ii' or, with a hold, 'hi'."""
    if not names:
        return {}
    # dpkg-query exits 1 when a name is unknown and still lists the others.
    _code, out, _err = module.run_command(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\\n"] + names
    )
    words = [line.split() for line in out.splitlines()]
    return {word[0]: word[1] for word in words if len(word) > 1}


def is_installed(state: str) -> bool:
    return state.endswith("i")


def installed(module: AnsibleModule, names: List[str]) -> List[str]:
    known = states(module, names)
    return [name for name in dict.fromkeys(names) if is_installed(known.get(name, ""))]


def explained(text: str, reasons: Dict[str, str]) -> str:
    """What apt-get says, and of each package that no source has, who needs it and what to do."""
    unknown = re.findall(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate", text)
    names = dict.fromkeys(first or second for first, second in unknown)
    return "\n".join([text, *(reasons[name] for name in names if name in reasons)])


def get(
    module: AnsibleModule, words: List[str], lock_timeout: int = 600, reasons: Optional[Dict[str, str]] = None
) -> str:
    """What apt-get says; waits while another apt holds a lock that its own time-out does not cover."""
    options = ["-o", f"DPkg::Lock::Timeout={lock_timeout}", "-o", "Acquire::Retries=3"]
    options += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
    deadline = time.monotonic() + lock_timeout
    tries = 0
    while True:
        code, out, err = module.run_command(
            ["apt-get", "--yes", "--quiet"] + options + words, environ_update=ENVIRONMENT
        )
        if code == 0:
            return str(out)
        # apt says what is wrong on one stream and that something is wrong on the other.
        text = "\n".join(part.strip() for part in (out, err) if part.strip())
        if any(word in err for word in BUSY) and time.monotonic() < deadline:
            time.sleep(3)
            continue
        tries += 1
        network = any(
            word in err for word in ("Failed to fetch", "Temporary failure", "Could not connect", "Unable to fetch")
        )
        if network and tries < 3:
            time.sleep(5 * tries)
            continue
        module.fail_json(
            msg="apt-get {} failed (exit {}):\n{}\nOnce that is mended, run the same command again.".format(
                " ".join(words), code, explained("\n".join(text.splitlines()[-20:]), reasons or {})
            )
        )


def hold(module: AnsibleModule, names: List[str], lock_timeout: int) -> None:
    """A hold is dpkg's own word for it: the one thing that apt-get, unattended-upgrades and an operator all heed."""
    deadline = time.monotonic() + lock_timeout
    while names:
        code, out, err = module.run_command(["apt-mark", "hold"] + names, environ_update=ENVIRONMENT)
        if code == 0:
            return
        if not any(word in out + err for word in BUSY) or time.monotonic() > deadline:
            module.fail_json(
                msg="apt-mark hold {} failed (exit {}): {}".format(" ".join(names), code, (err or out).strip())
            )
        time.sleep(3)


def automatic(module: AnsibleModule, names: List[str]) -> List[str]:
    """Those that nobody asked for by name, and that would go with whatever needs them."""
    _code, out, _err = module.run_command(["apt-mark", "showauto"] + names)
    return str(out).split()


def mark_automatic(module: AnsibleModule, names: List[str]) -> None:
    if names:
        module.run_command(["apt-mark", "auto"] + names, check_rc=True, environ_update=ENVIRONMENT)
