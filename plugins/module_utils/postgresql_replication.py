"""What a primary and its replicas need of each other. Pure: asks nothing, changes nothing."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

#: The role that replicas log in as. It may read the write-ahead log and nothing of a database.
ROLE = "shipshape_replica"
#: Where a replica has that role's password, for the server itself to read.
PASSFILE = "/var/lib/postgresql/.shipshape-replica"
#: As much of its log a primary keeps for a replica that is away. Beyond that the replica is cloned anew.
KEPT_WAL = "2GB"
SYNCHRONOUS = "shipshape_synchronous.conf"
#: What a replica must have at least as much of as its primary, or it does not start.
AT_LEAST = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
#: The slots of replicas by name, as `plan_slots` takes them. Not every version has `wal_status`.
SLOTS = """
SELECT coalesce(json_object_agg(slot_name, json_build_object('active', active,
    'lost', coalesce(to_json(slot) ->> 'wal_status' = 'lost', false))), '{}')
  FROM pg_replication_slots AS slot WHERE slot_type = 'physical' AND NOT temporary
"""
#: Seconds since the last transaction of a replica whose primary cannot be asked, beyond which it counts as left behind.
LATE = 300


def identifier(host: str) -> str:
    """A host's name as a slot and an application may be called: the same on every host."""
    return "shipshape_" + re.sub(r"[^a-z0-9]", "_", host.lower())[:50]


def conninfo(replication: Mapping[str, Any], name: str = "") -> str:
    """How a replica reaches its primary: by TLS, and with a proof that it is the one who knows the password."""
    words = {
        "host": replication["primary_address"],
        "port": "5432",
        "user": ROLE,
        "passfile": PASSFILE,
        "sslmode": "require",
        "channel_binding": "require",
        "gssencmode": "disable",
        "application_name": name or identifier(replication["name"]),
        "connect_timeout": "10",
    }
    return " ".join(f"{key}={value}" for key, value in words.items())


def settings(replication: Mapping[str, Any]) -> Dict[str, str]:
    """What stands in the configuration of a host that has peers. A primary does not read how replicas find theirs."""
    if not replication.get("peers"):
        return {}
    found = {"max_slot_wal_keep_size": KEPT_WAL}
    if replication.get("primary_address"):
        found["primary_conninfo"] = conninfo(replication)
        found["primary_slot_name"] = identifier(replication["name"])
    return found


def plan_slots(found: Mapping[str, Mapping[str, Any]], peers: Iterable[str]) -> List[Tuple[str, str]]:
    """(what is done, the SQL) so that each peer has a slot, and nobody else keeps the log from being removed."""
    wanted = {identifier(peer): peer for peer in peers}
    actions: List[Tuple[str, str]] = []
    for slot, state in sorted(found.items()):
        if state["active"] or not slot.startswith("shipshape_"):
            continue
        if slot not in wanted:
            actions.append((f"drop replication slot {slot}", f"SELECT pg_drop_replication_slot('{slot}')"))
        elif state["lost"]:
            actions.append((f"drop the outrun replication slot {slot}", f"SELECT pg_drop_replication_slot('{slot}')"))
    gone = {slot for slot, state in found.items() if state["lost"] and not state["active"]}
    for slot in sorted(set(wanted) - (set(found) - gone)):
        # Reserved at once: a clone that is just being made needs what is written from here on.
        sql = f"SELECT pg_create_physical_replication_slot('{slot}', true)"
        actions.append((f"create replication slot {slot}", sql))
    return actions


def synchronous_names(peers: Iterable[str], streaming: Iterable[str], current: str) -> str:
    """The value of synchronous_standby_names: the peers that stream, and those that are waited for already.

    One that has never streamed must not be waited for, since each commit would wait for ever.
    """
    named = set(re.findall(r"\w+", current)) | set(streaming)
    names = [identifier(peer) for peer in peers if identifier(peer) in named]
    return "ANY 1 ({})".format(", ".join(names)) if names else ""


def controldata(text: str) -> Dict[str, str]:
    """What pg_controldata says, by its own names."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def raised(control: Mapping[str, str], own: Mapping[str, int]) -> Dict[str, int]:
    """Settings of a replica that must be higher than its configuration says, because the primary's are."""
    found = {}
    for key, setting in AT_LEAST.items():
        needed = int(control.get(f"{key} setting", "0"))
        if needed > own[setting]:
            found[setting] = needed
    return found


def position(lsn: str) -> int:
    """A place in the write-ahead log as a number of bytes."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def behind(primary: Optional[str], replica: str) -> Optional[int]:
    """Bytes that the replica lacks; None when the primary could not be asked."""
    return max(0, position(primary) - position(replica)) if primary else None


def further(replica: str, others: Mapping[str, str]) -> Tuple[str, int]:
    """(which of the other replicas has most of the log, bytes of it that the replica lacks) from their positions."""
    lacks = {host: behind(lsn or None, replica) or 0 for host, lsn in others.items()}
    most = max(lacks.values(), default=0)
    return next((host for host, lack in lacks.items() if lack == most), ""), most


def refusal(lag: int, limit: int, primary: str, replica: str, connected: bool) -> str:
    """Why the replica must not be promoted while its primary answers; nothing when it may."""
    accept = "Or say that the loss is accepted: -e accept_loss=true"
    if lag > limit:
        return (
            f"{replica} is {lag} bytes of the write-ahead log behind {primary}; the limit is {limit} (-e lag=BYTES). "
            f"Nothing was changed. Let it catch up: `SELECT * FROM pg_stat_replication` on {primary} shows it. {accept}"
        )
    if connected:
        return ""
    return (
        f"{replica} is not connected to {primary}, so what {primary} has written last may not get there. Nothing was "
        f"changed. site.yml has it follow, playbooks/verify.yml says whether it does. {accept}"
    )


def refusal_of_unknown(
    age: Optional[float], primary: str, replica: str, ahead: Tuple[str, int], silent: Sequence[str]
) -> str:
    """Why the replica must not be promoted, of which no primary says how far behind it is; nothing when it may.

    `ahead` is what `further` says of the other replicas, `silent` are those that do not answer. A commit may have been
    confirmed by any one of them.
    """
    unknown = f"{primary} does not answer, so nobody knows how far behind it {replica} is"
    if ahead[1]:
        return (
            f"{ahead[0]} has {ahead[1]} bytes of the write-ahead log that {replica} lacks, and {primary} does not "
            f"answer. Nothing was changed. Promote that one: -e to={ahead[0]}. Or say that the loss is accepted; "
            f"{ahead[0]} is then copied anew: -e accept_loss=true"
        )
    if silent:
        names, does = " and ".join(silent), "do" if len(silent) > 1 else "does"
        return (
            f"{unknown}; and {names} {does} not answer either, and may have what {replica} lacks. Nothing was changed. "
            "Bring PostgreSQL up there, so that the furthest one is promoted. If there is no hope of that, or the loss "
            "is accepted: -e accept_loss=true"
        )
    if age is not None and age <= LATE:
        return ""
    last = "has no transaction at all" if age is None else f"has its last transaction from {int(age)} seconds ago"
    return (
        f"{unknown}; {replica} {last}, and more than "
        f"{LATE} seconds may mean that it was cut off before. Nothing was changed. If nobody wrote meanwhile, or the "
        f"loss is accepted: -e accept_loss=true"
    )
