"""Whether the replicas follow this server: told before a promotion needs one."""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from shipshape_database.server import rows
from shipshape_database.unattended import cry, read_json, write

SENDERS = """
SELECT application_name AS name, state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS bytes_behind,
  round(extract(epoch FROM coalesce(replay_lag, '0'))::numeric, 1) AS seconds_behind FROM pg_stat_replication
"""
#: Bytes of the write-ahead log, as `verify.yml` and a promotion have them.
FAR_BEHIND = 16 * 1024 * 1024
#: Seconds: a restart of a droplet is no news, and one that stays away is told again after REMIND.
PATIENCE, REMIND = 600, 6 * 3600
#: What a server sends to a replica that is just being made.
CLONING = "backup"
#: What is told beside that.
HINT = "the apps run on; were this droplet lost, so would be what the replica lacks. playbooks/verify.yml says more"


def moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


def judge(
    replicas: Dict[str, str], senders: Sequence[Dict[str, Any]], known: Dict[str, Any], now: float
) -> Tuple[Dict[str, Any], List[str], bool]:
    """(what a monitor reads, what is to be told, whether something is wrong) of the replicas, by host.

    `replicas` has the name under which each connects, `known` what was found the last time.
    """
    found = {str(row["name"]): row for row in senders}
    cloning = any(row["state"] == CLONING for row in senders)
    state: Dict[str, Any] = {"at": moment(now), "told": known.get("told", 0), "replicas": {}}
    trouble = []
    for host, name in replicas.items():
        row = found.get(name)
        streams, behind = row is not None and row["state"] == "streaming", row and row["bytes_behind"]
        good = streams and (behind or 0) <= FAR_BEHIND
        before: Optional[str] = known.get("replicas", {}).get(host, {}).get("since")
        since = None if good else datetime.datetime.fromisoformat(before).timestamp() if before else now
        state["replicas"][host] = {
            "streams": streams,
            "bytes_behind": behind,
            "seconds_behind": row and row["seconds_behind"],
            "since": None if since is None else moment(since),
        }
        if since is not None and now - since > PATIENCE and not cloning:
            what = f"is {behind} bytes of the write-ahead log behind" if streams else "does not follow"
            trouble.append(f"the replica on {host} {what}, since {moment(since)}")
    if trouble and now - state["told"] > REMIND:
        state["told"] = now
        return state, trouble, True
    if state["told"] and not trouble and all(each["since"] is None for each in state["replicas"].values()):
        state["told"] = 0
        return state, [f"the replica on {host} follows again" for host in replicas], False
    return state, [], bool(trouble)


@dataclass
class Settings:
    """What the role wrote: the replicas with the name under which each connects, and who is told."""

    host: str
    replicas: Dict[str, str]
    webhook: str
    mail: str
    program: str = "shipshape-database"

    def scrub(self, text: str) -> str:
        """The webhook's address is a secret."""
        return text.replace(self.webhook, "(secret)") if self.webhook else text


def replicas(configuration: Path, path: Path) -> Tuple[List[str], List[str]]:
    """(what was found, what is wrong); writes it for monitors, and tells whom the configuration names."""
    settings = Settings(**json.loads(configuration.read_text(encoding="utf-8")))
    state, news, wrong = judge(settings.replicas, rows(SENDERS), read_json(path), time.time())
    write(path, json.dumps(state) + "\n")
    if news:
        cry(settings, f"PostgreSQL on {settings.host}:", news + ([HINT] if wrong else []))
    lines = [
        f"{host}: streams, {found['bytes_behind']} bytes behind" if found["streams"] else f"{host}: does not follow"
        for host, found in state["replicas"].items()
    ]
    return ([], lines) if wrong else (lines, [])
