"""Accounts of the people who administer a droplet: what has to be done for one, and how that is undone."""

from __future__ import annotations

import grp
import pwd
from typing import List, NamedTuple, Optional, Sequence, Tuple

Command = List[str]

GROUP = "sudo"
#: Groups beside it that may be asked for. Whoever may speak to Docker's engine is as good as root, as an admin is.
MORE_GROUPS = ("docker",)
SHELL = "/bin/bash"
#: Shells that end a session at once.
CLOSED = ("nologin", "false")


class Account(NamedTuple):
    """What a host knows of a user."""

    home: str
    shell: str
    groups: Tuple[str, ...]
    #: The account is closed from a day on, as field 8 of shadow says.
    expires: bool


def look_up(name: str) -> Optional[Account]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(group.gr_name for group in grp.getgrall() if name in group.gr_mem)
    with open("/etc/shadow", encoding="utf-8") as stream:
        fields = next((line.rstrip("\n").split(":") for line in stream if line.startswith(name + ":")), [""] * 9)
    return Account(entry.pw_dir, entry.pw_shell, groups, bool(fields[7]))


def home_of(name: str) -> str:
    """Where an admin's home is or will be."""
    account = look_up(name)
    if account:
        return account.home
    return "/root" if name == "root" else f"/home/{name}"


def there_are(groups: Sequence[str]) -> List[str]:
    """Those that this host has: a database host has no Docker, and needs nobody in its group."""
    known = {group.gr_name for group in grp.getgrall()}
    return [name for name in groups if name in known]


def to_admit(
    name: str, account: Optional[Account], more: Optional[Sequence[str]] = None
) -> Tuple[List[Command], List[Command]]:
    """(what makes an admin of this user, what undoes it).

    `more` are the groups beside sudo; None leaves the account in those in which it is.
    """
    if account is None:
        # No password at all: '*' cannot be typed, and unlike '!' does not lock the account for keys.
        # And none that grows too old: PAM would then shut out the key, too, until somebody types the old password.
        made = ["useradd", "--create-home", "--shell", SHELL, "--groups", ",".join((GROUP, *(more or ())))]
        made += ["--password", "*"]
        made += ["--key", "PASS_MAX_DAYS=99999", "--key", "PASS_MIN_DAYS=0", "--inactive", "-1"]
        made += ["--key", "UMASK=027", name]
        # Undone by its keys and its sudo rule, which go; the account stays, since somebody may have put files there.
        return [made], []
    do: List[Command] = []
    undo: List[Command] = []
    if name != "root" and GROUP not in account.groups:
        do.append(["usermod", "--append", "--groups", GROUP, name])
        undo.append(["gpasswd", "--delete", name, GROUP])
    for group in MORE_GROUPS if more is not None and name != "root" else ():
        add, delete = ["gpasswd", "--add", name, group], ["gpasswd", "--delete", name, group]
        if group in (more or ()) and group not in account.groups:
            do.append(add)
            undo.append(delete)
        if group not in (more or ()) and group in account.groups:
            do.append(delete)
            undo.append(add)
    if account.shell.rsplit("/", 1)[-1] in CLOSED:
        do.append(["usermod", "--shell", SHELL, name])
        undo.append(["usermod", "--shell", account.shell, name])
    if account.expires:
        do.append(["usermod", "--expiredate", "", name])
        undo.append(["usermod", "--expiredate", "1", name])
    return do, undo


def to_dismiss(name: str, account: Optional[Account]) -> Tuple[List[Command], List[Command]]:
    """(what takes all rights from a former admin, what undoes it). The home stays: it may hold what others need."""
    if account is None or name == "root":
        return [], []
    do: List[Command] = [["usermod", "--lock", "--expiredate", "1", "--shell", "/usr/sbin/nologin", name]]
    undo: List[Command] = [
        ["usermod", "--unlock", name],
        ["usermod", "--expiredate", "", "--shell", account.shell, name],
    ]
    for group in (GROUP, *MORE_GROUPS):
        if group in account.groups:
            do.append(["gpasswd", "--delete", name, group])
            undo.append(["gpasswd", "--add", name, group])
    return do, undo
