"""A change to the way into a droplet that the droplet itself takes back unless it is confirmed in time.

What was there is kept in STATE before anything is changed. A timer, and a unit at the next boot, put it back unless the
program has been told the token by way of a new login.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import secrets
import shlex
import subprocess
import tarfile
from typing import Any, Dict, Iterator, List, NamedTuple, Set

from ansible.module_utils.basic import AnsibleModule

STATE = "/var/lib/shipshape/way-in"
PROGRAM = "/usr/local/lib/shipshape/way-in"
UNIT = "/etc/systemd/system/shipshape-way-in-revert.service"
DEADLINE = "shipshape-way-in-deadline"
#: What ufw and pam-auth-update change beside the files that a task names.
TREES = ("/etc/ufw", "/etc/default/ufw", "/etc/pam.d", "/var/lib/pam")


class Refused(Exception):
    """A change that would shut somebody out, or that the host cannot make; nothing has been changed."""


def path(name: str) -> str:
    return os.path.join(STATE, name)


def read(name: str) -> str:
    try:
        with open(path(name), encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(target: str, text: str, mode: int) -> None:
    """Whole or not at all, also after a power cut."""
    temporary = target + ".new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(handle, mode)
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    os.replace(temporary, target)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Nothing is taken back while this is held; it is let go when this process ends, however it ends."""
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    handle = os.open(path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_armed() -> bool:
    return os.path.exists(path("armed"))


def reverted_at() -> str:
    """When an earlier change was taken back and nobody has been told so since."""
    return read("reverted").strip()


def forget_reverted() -> None:
    """It has been said once."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path("reverted"))


def revert(module: AnsibleModule) -> str:
    """Put everything back now; what went wrong, or nothing. Must not be called while `locked` is held."""
    code, _out, err = module.run_command([PROGRAM, "revert"])
    return err.strip() if code != 0 else ""


def confirmed_admins() -> List[str]:
    """The admins of the last confirmed state."""
    return read("admins").split()


def keep(paths: List[str]) -> None:
    """Keep what is at these paths now. A directory is kept without what is in it, those of TREES with it."""
    temporary = path("before.tar.new")
    with open(temporary, "wb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in [*paths, *TREES]:
                if os.path.lexists(name):
                    archive.add(name, arcname=name.lstrip("/"), recursive=name in TREES)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path("before.tar"))
    # Only these go before that is put back: whatever was there stays until the archive has something in its place.
    write(path("added"), "".join(name + "\n" for name in paths if not os.path.lexists(name)), 0o600)


class Plan(NamedTuple):
    """What an armed change needs to be taken back, and to be noted when it is confirmed."""

    paths: List[str]
    undo: List[List[str]]
    firewall_active: bool
    admins: List[str]
    dismissed: List[str]


def arm(module: AnsibleModule, texts: Dict[str, str], plan: Plan, seconds: int) -> str:
    """Keep what is there and have it put back after so many seconds, or at the next boot; returns the token."""
    for target in (PROGRAM, UNIT):
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    write(PROGRAM, texts[PROGRAM], 0o755)
    write(UNIT, texts[UNIT], 0o644)
    module.run_command(["systemctl", "enable", "--quiet", os.path.basename(UNIT)], check_rc=True)
    token = secrets.token_hex(16)
    keep(plan.paths)
    undo = [" ".join(shlex.quote(word) for word in command) for command in plan.undo]
    for name, lines in (("undo", undo), ("admins.new", plan.admins), ("dismissed", plan.dismissed)):
        write(path(name), "".join(line + "\n" for line in lines), 0o600)
    write(path("ufw"), "active\n" if plan.firewall_active else "inactive\n", 0o600)
    module.run_command(["systemctl", "stop", DEADLINE + ".timer"])
    write(path("armed"), token + "\n", 0o600)
    os.sync()
    module.run_command(
        ["systemd-run", "--quiet", "--collect", "--unit=" + DEADLINE, f"--on-active={seconds}"]
        + ["--timer-property=AccuracySec=1s", PROGRAM, "revert", token],
        check_rc=True,
    )
    return token


# -- what ssh is like now ---------------------------------------------------------------------------------------------


def uses_socket() -> bool:
    """Whether systemd listens for sshd, as Ubuntu has it since 22.10."""
    return subprocess.run(["systemctl", "is-active", "--quiet", "ssh.socket"], check=False).returncode == 0


def parse_ports(text: str) -> List[int]:
    """Ports in what `sshd -T` says (port 22) or `systemctl show --property=Listen` (Listen=[::]:22 (Stream))."""
    found = re.findall(r"^port (\d+)$|^Listen=.*?:?(\d+) \(Stream\)", text, re.MULTILINE)
    return sorted({int(first or second) for first, second in found})


def current_ports(module: AnsibleModule, socket: bool) -> List[int]:
    """Where sshd is reached now."""
    command = ["systemctl", "show", "--property=Listen", "ssh.socket"] if socket else ["sshd", "-T"]
    code, out, err = module.run_command(command)
    if code != 0:
        raise Refused(
            f"'{' '.join(command)}' failed, so ssh is broken on this host already; mend it first:\n{err.strip()}"
        )
    return parse_ports(out)


def listeners(text: str) -> Dict[int, str]:
    """Port and program of each line of `ss -Hltnp`."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3:
            program = re.search(r'users:\(\("([^"]+)"', line)
            found[int(words[3].rsplit(":", 1)[1])] = program.group(1) if program else "an unknown program"
    return found


def operator_address() -> str:
    """Where the operator of this very run comes from, or nothing when that is not by ssh."""
    process = os.getpid()
    while process > 1:
        try:
            with open(f"/proc/{process}/environ", "rb") as stream:
                found = re.search(rb"(?:^|\0)SSH_CONNECTION=(\S+) ", stream.read())
            if found:
                return found.group(1).decode().replace("::ffff:", "")
            with open(f"/proc/{process}/stat", encoding="utf-8") as stream:
                process = int(stream.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            return ""
    return ""


def port_file(ports: List[int]) -> str:
    lines = "".join(f"Port {port}\n" for port in ports)
    return "# Written by Shipshape. Several while a new port is not proven yet.\n" + lines


def socket_file(ports: List[int]) -> str:
    lines = "".join(f"ListenStream={port}\n" for port in ports)
    return "# Written by Shipshape.\n[Socket]\nBindIPv6Only=both\nListenStream=\n" + lines


def contains(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


def admits(rules: List[Dict[str, Any]], port: int, address: str) -> bool:
    """Whether one of the firewall's rules lets the operator's address reach sshd."""
    matching = [rule for rule in rules if rule["port"] == port and rule["protocol"] == "tcp"]
    return any(
        not rule["sources"] or not address or any(contains(source, address) for source in rule["sources"])
        for rule in matching
    )


def check(rules: List[Dict[str, Any]], port: int, now: List[int], taken: Dict[int, str], address: str) -> None:
    """Refuse what would shut the operator out."""
    if port not in now and port in taken:
        raise Refused(
            f"hardening_ssh_port is {port}, where {taken[port]} listens on this host already. Take another, "
            "or move that service first."
        )
    ports: Set[int] = {rule["port"] for rule in rules}
    if port not in ports:
        raise Refused(f"the firewall's list has no rule for sshd's port {port}, so nobody could log in any more")
    if not admits(rules, port, address):
        raise Refused(
            f"hardening_ssh_sources does not contain {address}, from where you are connected now: the firewall would "
            "cut you off. Add it, or run this from one of the addresses that are in it."
        )
