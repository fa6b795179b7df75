"""The way in, accounts, kernel, updates, certificates and units, judged by what the running system says of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .verify_finding import Finding, failure, output

State = Mapping[str, Any]
#: Who is in one of these can become root.
PRIVILEGED_GROUPS = ("sudo", "admin", "wheel", "docker", "lxd", "disk")


def sshd(state: State, wanted: Sequence[str]) -> Iterator[Finding]:
    """What sshd says it does with a login of each user, all its files and `Match` blocks taken together."""
    seen: set[str] = set()
    for user, answer in state["sshd"].items():
        if answer is None or answer["code"] != 0:
            said = "sshd is not installed" if answer is None else f"`sshd -T` failed: {answer['err'].strip()}"
            if said not in seen:
                yield Finding("sshd", said, "a configuration that sshd accepts")
            seen.add(said)
            continue
        lines = [line.lower() for line in answer["out"].splitlines()]
        for line in wanted:
            name = line.split()[0].lower()
            found = ", ".join(one for one in lines if one.split()[:1] == [name]) or f"no line `{name}`"
            if line.lower() not in lines and found not in seen:
                seen.add(found)
                yield Finding(
                    "sshd",
                    f"`{found}` for {user}",
                    line,
                    "sshd takes the first value it meets: look for a file in /etc/ssh/sshd_config.d that sorts before "
                    "00-shipshape.conf, and for a `Match` block",
                )


def _grants(answer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The lines of `sudo -l` that allow something."""
    if answer is None or "may run the following commands" not in answer["out"]:
        return ()
    _before, _sign, after = answer["out"].partition("may run the following commands")
    return tuple(line.strip() for line in after.splitlines()[1:] if line.strip())


def sudo(state: State, admins: Sequence[str]) -> Iterator[Finding]:
    """Who may become somebody else: root and the admins."""
    others: dict[tuple[str, ...], list[str]] = {}
    for user, answer in state["sudo"].items():
        grants = _grants(answer)
        if user in admins and not any("ALL" in grant.split() and "NOPASSWD:" in grant for grant in grants):
            found = "; ".join(grants) or "nothing that sudo allows"
            yield Finding("sudo", f"{user}: {found}", "(ALL : ALL) NOPASSWD: ALL, as of each admin", "Run again")
        if user not in (*admins, "root") and grants:
            others.setdefault(grants, []).append(user)
    ours = ("/etc/sudoers.d/README", "/etc/sudoers.d/50-shipshape-admins")
    foreign = [path for path in state["sudoers"] if path not in ours]
    look = f"Look at {', '.join(foreign)}" if foreign else "Look at /etc/sudoers and the user's groups"
    for grants, users in others.items():
        whom = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        yield Finding("sudo", f"{whom}: {'; '.join(grants)}", "only `admins` may become root", look)
    for user, number in state["users"].items():
        if number == 0 and user != "root":
            yield Finding("accounts", f"{user} with number 0, which is root", "root alone", f"`userdel {user}`")
    for admin in admins:
        if admin not in state["users"]:
            yield Finding("accounts", f"no account {admin}", "an admin", "Run again")


def privileged_groups(state: State, admins: Sequence[str]) -> Iterator[Finding]:
    for group in PRIVILEGED_GROUPS:
        for user in state["groups"].get(group, ()):
            if user not in admins and user != "root":
                yield Finding(
                    "groups",
                    f"{user} in group {group}, which is as good as root",
                    "`admins` alone",
                    f"`gpasswd -d {user} {group}`",
                )


def sysctl(state: State, wanted: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in wanted.items():
        found = state["sysctl"].get(name) or {}
        # The kernel does not have it, or does not let this host have its own, as in a container.
        if found.get("value") is None or not found.get("settable"):
            continue
        if found["value"] != " ".join(str(value).split()):
            yield Finding("kernel", f"{name} = {found['value']}", str(value), "`sysctl --system`, or run again")


def upgrades(state: State, wanted: bool) -> Iterator[Finding]:
    """What apt has understood, which is not always what a file says."""
    listing = output(state, "apt")
    if not wanted:
        return
    if listing is None:
        yield Finding("updates", failure(state, "apt"), "security updates every day")
        return
    settings = re.findall(r'^(\S+) "(.*)";$', listing, re.MULTILINE)
    daily = dict(settings).get("APT::Periodic::Unattended-Upgrade", "")
    if daily in ("", "0"):
        yield Finding("updates", f'APT::Periodic::Unattended-Upgrade "{daily}"', "1", "Run again")
    origins = [value for name, value in settings if name.startswith("Unattended-Upgrade::") and "Origins" in name]
    if not any("security" in origin.lower() for origin in origins):
        found = ", ".join(origin for origin in origins if origin) or "none"
        yield Finding(
            "updates", f"these origins: {found}", "the distribution's security updates",
            "Look at /etc/apt/apt.conf.d/50unattended-upgrades and what sorts after it",
        )  # fmt: skip


def _keys(lines: Sequence[str]) -> Counter[str]:
    """How many different rules there are with each key."""
    return Counter(key for line in set(lines) for key in re.findall(r"(?:-k |-F key=)(\S+)", line))


def audit(state: State) -> Iterator[Finding]:
    """Rules of files against those loaded; a kernel that does not let one ask, as a container's, is passed over."""
    loaded = output(state, "audit")
    if loaded is None:
        return
    wanted, there = _keys(state["audit_rules"]), _keys(loaded.splitlines())
    for key in sorted(wanted - there):
        found = f"{there[key]} of {wanted[key]} rules with key {key}" if there[key] else f"no rule with key {key}"
        yield Finding("audit", f"{found} in force", "as in /etc/audit/rules.d", "`augenrules --load`")


def apparmor(state: State) -> Iterator[Finding]:
    profiles = state["apparmor"]
    if profiles is not None and "enforce" not in profiles.values():
        found = f"{len(profiles)} profiles, none of them enforced"
        yield Finding("AppArmor", found, "the distribution's profiles, enforced", "`systemctl restart apparmor`")
        return
    for name in sorted(name for name, mode in (profiles or {}).items() if mode == "complain"):
        found = f"profile {name} in complain mode, which only notes what it should forbid"
        yield Finding("AppArmor", found, "enforced", f"`aa-enforce {name}` (package apparmor-utils)")


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    except ValueError:
        return None


def certificates(state: State, now: datetime) -> Iterator[Finding]:
    """The certificate that a browser gets: valid, for that name, and the one in the file."""
    for one in state["certificates"]:
        where, path = f"certificate of {one['name']}", one["path"]
        if not one["there"]:
            yield Finding(
                where, f"none at {path}: {one['error']}", "a certificate", "Run again with --tags proxy,certbot"
            )
            continue
        begins, ends = _time(one["begins"]), _time(one["ends"])
        if ends is None or ends <= now or begins is None or begins > now:
            found = f"{path}, valid from {one['begins']} until {one['ends']}"
            yield Finding(where, found, "a valid one", "Does the renewal work? `certbot renew --dry-run`")
        if one["self_signed"] and not one.get("self_signed_wanted"):
            yield Finding(where, f"{path}, self-signed", "one of an authority", "Run again with --tags certbot")
        if not one["names_it"]:
            yield Finding(where, f"{path}, which is for other names", one["name"], "Run again with --tags certbot")
        served = one["served"]
        if served["error"]:
            yield Finding(
                where, f"nothing served on port 443: {served['error']}", path, "`systemctl status nginx traefik`"
            )
        elif served["fingerprint"] != one["fingerprint"]:
            found = f"another one served (SHA-256 {served['fingerprint'][:16]}…)"
            yield Finding(where, found, f"{path} ({one['fingerprint'][:16]}…)", "`systemctl reload nginx` or `traefik`")


def units(state: State) -> Iterator[Finding]:
    listing = output(state, "units")
    if listing is None:
        yield Finding("units", failure(state, "units"), "no failed one")
        return
    for line in listing.splitlines():
        if words := line.replace("●", " ").split():
            yield Finding("units", f"{words[0]} has failed", "none has", f"`journalctl -u {words[0]}`")
