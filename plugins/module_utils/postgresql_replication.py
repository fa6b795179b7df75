"""What a primary and its replicas need of each other. Pure: asks nothing, changes nothing."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

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


def refusal(lag: Optional[int], limit: int, age: Optional[float], primary: str, replica: str) -> str:
    """Why the replica must not be promoted; nothing when it may."""
    accept = "Or say that the loss is accepted: -e accept_loss=true"
    if lag is not None:
        if lag <= limit:
            return ""
        return (
            f"{replica} is {lag} bytes of the write-ahead log behind {primary}; the limit is {limit} (-e lag=BYTES). "
            f"Nothing was changed. Let it catch up: `SELECT * FROM pg_stat_replication` on {primary} shows it. {accept}"
        )
    if age is not None and age <= LATE:
        return ""
    last = "has no transaction at all" if age is None else f"has its last transaction from {int(age)} seconds ago"
    return (
        f"{primary} does not answer, so nobody knows how far behind it {replica} is; {replica} {last}, and more than "
        f"{LATE} seconds may mean that it was cut off before. Nothing was changed. If nobody wrote meanwhile, or the "
        f"loss is accepted: -e accept_loss=true"
    )
