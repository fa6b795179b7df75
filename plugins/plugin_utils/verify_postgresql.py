"""PostgreSQL, judged by what the running server says: settings, who may come in how, checksums, and the apps' roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..module_utils.postgresql_replication import identifier
from .declared_ports import is_loopback
from .verify_finding import Finding

State = Mapping[str, Any]
WHERE = "PostgreSQL"
RUN = "Run again with --tags postgresql"
#: By these nobody proves who they are, or they send what can be replayed.
WEAK = ("trust", "password", "md5", "ident")
#: Where a smaller replica says what must be as large as its primary's.
RAISED = "/conf.d/shipshape_standby.conf"
#: Bytes of the write-ahead log, as the limit of promote.yml.
FAR_BEHIND = 16 * 1024 * 1024


def postgresql(state: State, wanted: Mapping[str, Any] | None) -> Iterator[Finding]:
    """All of it, where there shall be a server."""
    if not wanted:
        return
    found = state.get("postgresql") or {"error": "it was not asked"}
    if found.get("error"):
        yield Finding(WHERE, f"no answer: {found['error']}", f"version {wanted['version']}, running", RUN)
        return
    yield from _settings(found, wanted.get("settings") or {})
    yield from _logins(found)
    yield from _roles(found, wanted.get("roles") or [])
    yield from _replication(found, wanted.get("replication") or {})
    if not found["checksums"]:
        version, binaries = wanted["version"], f"/usr/lib/postgresql/{wanted['version']}/bin"
        unit = f"postgresql@{version}-main"
        hint = (
            f"In a quiet hour, for the server stands still meanwhile: `systemctl stop {unit} && runuser -u postgres -- "
            f"{binaries}/pg_checksums --enable -D {found['data']}; systemctl start {unit}`"
        )
        yield Finding(WHERE, "pages without checksums", "checksums, by which a broken disk is noticed", hint)


def plain(value: Any) -> str:
    """A setting as the server reads it from the file."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _settings(found: State, wanted: Mapping[str, Any]) -> Iterator[Finding]:
    """Each declared setting: in our file, in force, and nothing else has the last word."""
    for name, value in wanted.items():
        text, written, now = plain(value), found["file"].get(name), found["settings"].get(name)
        if now is None:
            yield Finding(WHERE, f"no setting {name}", text, "Take it out of `postgresql_settings`")
        elif written is None or written["setting"] != text:
            said = "nothing" if written is None else written["setting"]
            yield Finding(WHERE, f"{name}: {said} in {found['path']}", text, RUN)
        elif now["pending"]:
            yield Finding(WHERE, f"{name} = {now['value']}, until the next restart", text, RUN)
        elif now["from"] != found["path"] and not (found["replica"] and str(now["from"]).endswith(RAISED)):
            hint = f"`ALTER SYSTEM RESET {name}` and a reload, or look there"
            yield Finding(WHERE, f"{name} = {now['value']}, from {now['from'] or now['source']}", text, hint)


def _logins(found: State) -> Iterator[Finding]:
    for rule in found["hba"]:
        line = f"line {rule['line']} of pg_hba.conf"
        if rule["error"]:
            yield Finding(WHERE, f"{line}: {rule['error']}", "rules that can be read", RUN)
            continue
        if rule["method"] in WEAK:
            said = f"{line} lets {', '.join(rule['users'] or [])} in by {rule['method']}"
            yield Finding(WHERE, said, "SCRAM alone", "See `postgresql_hba_lines`")
        remote = rule["type"] in ("host", "hostnossl") and not is_loopback(str(rule["address"]))
        if remote and rule["method"] != "reject":
            said = f"{line} lets {rule['address']} in without TLS"
            yield Finding(WHERE, said, "TLS from other hosts", "`hostssl` in `postgresql_hba_lines`")


def _replication(found: State, wanted: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a replica follows, and on the primary, how far behind each is."""
    primary, peers = wanted.get("primary"), [peer["name"] for peer in wanted.get("peers") or []]
    if primary:
        if not found["replica"]:
            yield Finding(WHERE, "data of its own", f"a replica of {primary}", RUN)
        elif not found["receives"]:
            hint = f"The end of /var/log/postgresql says why; {RUN[0].lower()}{RUN[1:]}"
            yield Finding(WHERE, f"a replica that does not follow {primary}", "one that streams from it", hint)
        return
    if found["replica"] and peers:
        yield Finding(WHERE, "a replica", "the primary", "playbooks/promote.yml makes one of it")
        return
    for peer in peers:
        behind = found["senders"].get(identifier(peer))
        if behind is None:
            hint = f"It says why in /var/log/postgresql; {RUN[0].lower()}{RUN[1:]}"
            yield Finding(WHERE, f"no replica on {peer}", "one that streams from here", hint)
        elif behind > FAR_BEHIND:
            hint = "`SELECT * FROM pg_stat_replication` shows where it waits; a promotion would lose what it lacks"
            yield Finding(WHERE, f"the replica on {peer} {behind} bytes behind", f"up to {FAR_BEHIND}", hint)


def _roles(found: State, wanted: list[str]) -> Iterator[Finding]:
    for name in wanted:
        role = found["roles"].get(name)
        if role is None:
            yield Finding(WHERE, f"no role {name}", "an app's role", RUN)
            continue
        if not role["scram"]:
            yield Finding(WHERE, f"a password of {name} that is not kept by SCRAM", "SCRAM alone", RUN)
        powers = [power for power in ("superuser", "bypassrls") if role[power]]
        if powers:
            yield Finding(WHERE, f"{name} with {' and '.join(powers)}", "a role that row-level security binds", RUN)
