"""A major upgrade of PostgreSQL in thought: what stands in its way, what a run has to do, what is compared. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_replication import identifier

PLAYBOOK = "playbooks/maintenance/upgrade_postgresql.yml"
MB = 1 << 20
#: Beside a copy of the data: an empty cluster, its log while it is filled, and the definitions of all objects.
ROOM = 512 * MB

# What the note on the host says has been reached. Up to STOPPED the old cluster is the one with the data; from SWITCHED
# on it is the new one.
PREPARED = "prepared"
STOPPED = "stopped"
SWITCHED = "switched"
DONE = "done"
RETURNING = "returning"
RETURNED = "returned"

# What a run has to do.
BEGIN = "begin"
PUT_BACK = "put back, then begin"
FINISH = "finish"
NOTHING = "nothing"
RETURN = "return"

#: How the slots of our own replicas begin.
SLOTS = identifier("")

Note = Dict[str, Any]


class Refused(Exception):
    """What was asked for cannot be done, and nothing was changed. The text says why, and what to do."""


def decide(note: Note, wanted: str, live: List[str]) -> Tuple[str, str]:
    """(what a run has to do, the version it starts from), by the note and the versions of clusters that may start."""
    phase = note.get("phase", "")
    if phase == RETURNING:
        raise Refused(
            f"the way back from {note['to']} to {note['from']} is half done. Finish it: {PLAYBOOK} -e back=true"
        )
    if phase in (STOPPED, SWITCHED):
        if note["to"] != wanted:
            raise Refused(
                f"an upgrade from {note['from']} to {note['to']} is half done, and postgresql_version is '{wanted}'. "
                f"Set it to '{note['to']}' and run this again"
            )
        return (PUT_BACK if phase == STOPPED else FINISH), note["from"]
    others = [version for version in live if version != wanted]
    if not others:
        return NOTHING, wanted
    if len(others) > 1:
        raise Refused(f"there are clusters of several versions, {' and '.join(sorted(others))}: which holds the data?")
    old = others[0]
    if wanted in live and not (note.get("to") == wanted and phase in (PREPARED, RETURNED)):
        raise Refused(
            f"there is a cluster {wanted}/main beside {old}/main already, and this playbook has not made it. Look at "
            f"it (sudo -u postgres psql --cluster {wanted}/main -l). If it is the empty one that a package makes: "
            f"sudo pg_dropcluster --stop {wanted} main"
        )
    if int(wanted) < int(old):
        raise Refused(
            f"postgresql_version is '{wanted}', and the data is in a cluster of version {old}. An upgrade goes up: "
            f"leave it at '{old}'" + (", or -e back=true" if note.get("from") == wanted and phase == DONE else "")
        )
    return BEGIN, old


def decide_return(note: Note) -> str:
    """Whether there is a way back, or nothing left to do for it."""
    phase = note.get("phase", "")
    if phase == RETURNED:
        return NOTHING
    if phase not in (SWITCHED, DONE, RETURNING):
        raise Refused("there is no upgrade on this host to go back from")
    if note["mode"] == "link":
        raise Refused(
            f"the upgrade from {note['from']} to {note['to']} was made with link=true: both clusters are the same "
            f"files, and the old one cannot be started since the new one was. The way back is a backup from before "
            f"{note['said']['when']}, on a droplet with postgresql_version '{note['from']}'"
        )
    return RETURN


def untouched(note: Note) -> bool:
    """Whether nobody can have written since the old server was stopped, so that it may serve again."""
    # A new server that shares the old one's files has been started for the comparison once it says SWITCHED.
    return note["phase"] == STOPPED or (note["mode"] != "link" and "opened" not in note)


def require_no_replicas(replication: Mapping[str, Any], old: str) -> None:
    """A replica has its primary's files, and those of another version are of no use to it: neither moves as such."""
    if replication.get("primary"):
        raise Refused(
            f"{replication['name']} is a replica of {replication['primary']}: its data is a copy. What can be moved is "
            f"{replication['primary']}, once it has no replicas. If that is done, make this one anew from it: sudo "
            f"pg_dropcluster --stop {old} main, then site.yml"
        )
    peers = [peer["name"] for peer in replication.get("peers") or []]
    if peers:
        raise Refused(
            f"{replication['name']} has replicas: {', '.join(peers)}. They cannot follow it to another version; they "
            "are made anew from it. Take them out of group database in the inventory (and postgresql_synchronous), run "
            f"site.yml -e postgresql_version={old}; on each of them, sudo pg_dropcluster --stop {old} main; run this "
            "again; put them back and run site.yml"
        )


def space_needed(data: int, mode: str) -> int:
    """Bytes that the new cluster takes of the disk for `data` bytes of the old one."""
    return ROOM + (data + data // 20 if mode == "copy" else 0)


def obstacles(found: Mapping[str, Any], new: str, backup_hours: float) -> List[str]:
    """What has to be settled first, each with what to do."""
    lines: List[str] = []
    if found["recovery"]:
        return ["this server is a replica. Move its primary, and make the replica anew from that"]
    if found["superuser"] != "postgres":
        lines.append(f"the first role of the cluster is {found['superuser']}, and has to be postgres: rename it")
    if found["replicas"]:
        lines.append(
            f"replicas or other receivers of the log are connected: {', '.join(found['replicas'])}. They cannot follow "
            "to another version. Stop them (sudo pg_dropcluster --stop, on a replica), and make them anew when this is "
            "done"
        )
    for slot in found["slots"]:
        if not slot["active"] and slot["name"].startswith(SLOTS):
            continue  # of a former replica: what makes a new one makes its slot as well
        lines.append(
            f"the {slot['type']} replication slot {slot['name']} would be lost. When nobody needs it any more: "
            f"SELECT pg_drop_replication_slot('{slot['name']}')"
        )
    if found["prepared"]:
        lines.append(
            f"prepared transactions are open: {', '.join(found['prepared'])}. End each: COMMIT PREPARED, or ROLLBACK "
            "PREPARED"
        )
    if found["tablespaces"]:
        lines.append(
            f"there are tablespaces of your own, {', '.join(found['tablespaces'])}, which this playbook does not move. "
            "Move what is in them (ALTER TABLE … SET TABLESPACE pg_default) and drop them"
        )
    if found["beside"]:
        lines.append(
            f"clusters are restored beside the live one: {', '.join(found['beside'])}. Promote or drop them first "
            "(shipshape-pgbackrest drop NAME)"
        )
    lines += missing_extensions(found["extensions"], found["available"], new)
    needed, free = space_needed(found["bytes"], found["mode"]), found["free"]
    if free < needed:
        hint = "" if found["mode"] == "link" else ", or -e link=true, which copies nothing and has no way back"
        lines.append(
            f"the disk of /var/lib/postgresql has {free // MB} MB left, and {needed // MB} MB are needed for "
            f"{found['bytes'] // MB} MB of data. Make room{hint}"
        )
    lines += no_backup(found["backups"], backup_hours)
    return lines


def missing_extensions(used: Mapping[str, List[str]], available: Optional[List[str]], new: str) -> List[str]:
    """Extensions that are in use and that the new version has no files for; nothing while it is not installed."""
    if available is None:
        return []
    where: Dict[str, List[str]] = {}
    for database, names in used.items():
        for name in names:
            if name not in available:
                where.setdefault(name, []).append(database)
    return [
        f"extension {name} (database {', '.join(sorted(databases))}) is not installed for {new}: put its package for "
        f"{new} into postgresql_packages, or DROP EXTENSION"
        for name, databases in sorted(where.items())
    ]


def no_backup(ages: Mapping[str, Optional[float]], hours: float) -> List[str]:
    """Why the backups, each with the hours since it last succeeded or None, are not enough; 0 hours ask for none."""
    if hours <= 0:
        return []
    known = [age for age in ages.values() if age is not None]
    do = "Make one: playbooks/backup.yml" if ages else "The inventory has no `backup`"
    do += ". Or do without on purpose: -e backup_hours=0"
    if not known:
        return [f"there is no backup to come back to. {do}"]
    if min(known) > hours:
        return [f"the last backup is {min(known):.0f} hours old, and {hours:g} are allowed. {do}"]
    return []


def remarks(found: Mapping[str, Any], new: str) -> List[str]:
    """What is no obstacle and worth knowing."""
    lines = []
    if found["altered"]:
        lines.append(
            f"settings by ALTER SYSTEM are left behind: {', '.join(found['altered'])}. What is to stay belongs into "
            "postgresql_settings"
        )
    if found["available"] is None:
        lines.append(f"PostgreSQL {new} is not installed yet; what pg_upgrade --check says is known once it is")
    return lines


def report(note: Note) -> List[str]:
    """What the upgrade did, for the end of a run."""
    said = note["said"]
    old = note["from"]
    lines = [
        f"PostgreSQL {said['from']} -> {said['to']} ({note['mode']})",
        f"the apps were without the database for {note['down']:.1f} s, from {said['when']} on",
        f"the same before and after: {said['compared']}",
        *said.get("after", []),
    ]
    if note["mode"] == "link":
        lines.append(
            f"the old cluster's files are the new one's; there is no way back but a backup. Once all is well: "
            f"sudo pg_dropcluster {old} main"
        )
    else:
        lines += [
            f"the old cluster is kept as it was, stopped and disabled, in /var/lib/postgresql/{old}/main. The way "
            f"back, which loses what is written since: {PLAYBOOK} -e back=true",
            f"once nobody needs it any more: sudo pg_dropcluster {old} main, sudo apt-mark unhold postgresql-{old} "
            f"and sudo apt-get purge postgresql-{old}; until then its data takes {said['bytes'] // MB} MB",
        ]
    return lines


def parse_note(text: str) -> Note:
    """A note as a run has left it. It is written at once and whole, so that anything else is not of our making."""
    found = json.loads(text) if text.strip() else {}
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def locale_options(template: Mapping[str, Any], settings: Mapping[str, str]) -> List[str]:
    """Options of pg_createcluster for the same encoding and locale, without which pg_upgrade refuses a cluster."""
    options = ["--encoding", template["encoding"], "--lc-collate", template["collate"], "--lc-ctype", template["ctype"]]
    for name in ("lc_messages", "lc_monetary", "lc_numeric", "lc_time"):
        options += ["--" + name.replace("_", "-"), settings[name] or template["collate"]]
    return options


def initdb_options(found: Mapping[str, Any], new: str) -> List[str]:
    """Options of initdb: what pg_upgrade insists on being the same."""
    options = ["--wal-segsize", str(found["segment_mb"])]
    if found["checksums"]:
        options.append("--data-checksums")
    elif int(new) >= 18:
        options.append("--no-data-checksums")
    template = found["template"]
    if int(new) >= 15:
        provider = {"c": "libc", "i": "icu", "b": "builtin"}[template.get("provider", "c")]
        options.append(f"--locale-provider={provider}")
        if template.get("locale"):
            options.append(f"--{'icu' if provider == 'icu' else 'builtin'}-locale={template['locale']}")
    return options
