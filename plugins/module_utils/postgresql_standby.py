"""The local cluster as a replica: clone its primary, follow it, and what the server says of both."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_replication as replication
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    Cluster,
    ServerError,
    run_as_postgres,
    settle,
)

#: A receiver that starts anew counts from the beginning of a segment, part of which was replayed before.
FOLLOWED = """
SELECT json_build_object('recovering', pg_is_in_recovery(), 'received', greatest(pg_last_wal_receive_lsn(),
    pg_last_wal_replay_lsn()), 'replayed', pg_last_wal_replay_lsn(),
  'streaming', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  'replicas', (SELECT coalesce(json_agg(application_name), '[]') FROM pg_stat_replication
    WHERE state IN ('catchup', 'streaming')),
  'receiver', (SELECT pid FROM pg_stat_wal_receiver),
  'age', extract(epoch FROM now() - pg_last_xact_replay_timestamp()))
"""
#: Seconds in which a replica that can follow its primary does.
PATIENCE = 20


def data_directory(cluster: Cluster) -> str:
    """Where its configuration on disk says that the data is."""
    postgres = os.path.join(cluster.binaries, "postgres")
    code, out, err = run_as_postgres([postgres, "-D", cluster.configuration, "-C", "data_directory"])
    if code != 0:
        raise ServerError(f"the server would not start with the configuration on disk:\n{err.strip()}")
    return str(out).strip()


def control(cluster: Cluster, data: str) -> Dict[str, str]:
    """What the data directory says of itself, whether a server runs on it or not; empty where there is none."""
    code, out, _err = run_as_postgres([os.path.join(cluster.binaries, "pg_controldata"), "-D", data])
    found: Dict[str, str] = replication.controldata(out) if code == 0 else {}
    return found


def stop(cluster: Cluster, data: str, seconds: int) -> None:
    """Stop it and wait; a server that was killed has left its file behind."""
    quiet = subprocess.DEVNULL
    subprocess.run(["systemctl", "stop", cluster.unit], stdout=quiet, stderr=quiet, check=False)
    deadline = time.monotonic() + seconds
    while runs(data):
        if time.monotonic() > deadline:
            raise ServerError(f"cluster {cluster.version}/{cluster.name} does not stop:\n{cluster.log_tail()}")
        time.sleep(0.1)


def runs(data: str) -> bool:
    try:
        with open(os.path.join(data, "postmaster.pid"), encoding="utf-8") as handle:
            process = int(handle.readline())
        with open(f"/proc/{process}/comm", encoding="utf-8") as handle:
            return handle.read().strip() == "postgres"
    except (OSError, ValueError):
        return False


def why_clone(data: str) -> str:
    """Why what is there cannot follow a primary; nothing when it may."""
    if not os.path.exists(os.path.join(data, "PG_VERSION")):
        return "there is no data"
    return "" if os.path.exists(os.path.join(data, "standby.signal")) else "its own data is no copy"


def clone(cluster: Cluster, wanted: Mapping[str, Any], data: str, seconds: int) -> str:
    """Copy the primary beside what is there, then put the copy in its place; returns where the old data is kept."""
    incoming = f"{data}.incoming"
    if os.path.exists(incoming):
        shutil.rmtree(incoming)  # of a run that was cut off
    fresh = (cluster.settings_if_up() or {}).get("new", False)
    source = replication.conninfo(wanted, "shipshape_clone")
    command = [os.path.join(cluster.binaries, "pg_basebackup"), "-D", incoming, "-d", source, "-X", "stream"]
    code, _out, err = run_as_postgres([*command, "-c", "fast", "--no-password"])
    if code != 0:
        shutil.rmtree(incoming, ignore_errors=True)
        raise ServerError(
            f"cannot copy the primary {wanted['primary']} ({wanted['primary_address']}); what is here was left as it "
            "is. Does it run, and does its firewall let this host in? A whole run of the database hosts sees to both.\n"
            + err.strip()
        )
    signal = os.path.join(incoming, "standby.signal")
    code, _out, err = run_as_postgres(["touch", signal])
    if code != 0:
        raise ServerError(f"cannot write {signal}: {err.strip()}")
    stop(cluster, data, seconds)
    kept = ""
    if os.path.exists(data):
        if fresh:
            shutil.rmtree(data)
        else:
            kept = "{}.kept-{}".format(data, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
            os.rename(data, kept)
    os.rename(incoming, data)
    return kept


def raise_settings(cluster: Cluster, data: str) -> bool:
    """Write what has to be at least the primary's; whether that has changed."""
    names = sorted(replication.AT_LEAST.values())
    path = os.path.join(cluster.configuration, "conf.d", "shipshape_standby.conf")
    before = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as handle:
            before = handle.read()
    own: Dict[str, int] = {}
    for name in names:
        postgres = os.path.join(cluster.binaries, "postgres")
        code, out, err = run_as_postgres([postgres, "-D", cluster.configuration, "-C", name])
        if code != 0:
            raise ServerError(err.strip())
        own[name] = int(out)
    higher = replication.raised(control(cluster, data), own)
    if not higher:
        return False
    lines = "".join(f"{name} = {value}\n" for name, value in sorted(higher.items()))
    text = f"# Managed by Shipshape: a replica starts only with at least what its primary has.\n{lines}"
    if text != before:
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
    return text != before


def followed(cluster: Cluster) -> Dict[str, Any]:
    found: Dict[str, Any] = cluster.query(FOLLOWED)
    return found


def streams(cluster: Cluster, seconds: float) -> bool:
    """Whether it streams, or does within so many seconds.

    A receiver whose primary has no use for it streams, too, for the moment until it is told so. It is the same one
    that has to be seen twice.
    """
    deadline = time.monotonic() + seconds
    seen = 0
    while True:
        state: Optional[Dict[str, Any]] = None
        with contextlib.suppress(ServerError):
            state = followed(cluster)
        receiver = state["receiver"] if state and state["recovering"] and state["streaming"] else 0
        if receiver and receiver == seen:
            return True
        if time.monotonic() > deadline and not receiver:
            return False
        seen = receiver
        time.sleep(0.2)


def follow(cluster: Cluster, wanted: Mapping[str, Any], timeout: int, apply: bool) -> List[str]:
    """Have the cluster stream from its primary: what was done or, without `apply`, would be done."""
    if not (cluster.installed and cluster.exists):
        return [f"clone {wanted['primary']}"]
    data = data_directory(cluster)
    reason = why_clone(data)
    actions: List[str] = []
    if not reason:
        try:
            if apply:
                unmask(cluster)
                if raise_settings(cluster, data):
                    actions.append("raise settings to those of the primary")
            done, _settings = settle(cluster, timeout, apply)
            actions += done
            if streams(cluster, PATIENCE if apply else 0):
                return actions
            reason = f"it does not follow: {last_words(cluster)}"
        except ServerError as error:
            reason = f"it does not start: {str(error).splitlines()[-1]}"
    if not apply:
        return [*actions, f"clone {wanted['primary']}, for {reason}"]
    kept = clone(cluster, wanted, data, timeout)
    actions.append(f"clone {wanted['primary']}, for {reason}" + (f"; the old data is in {kept}" if kept else ""))
    unmask(cluster)
    raise_settings(cluster, data)
    done, _settings = settle(cluster, timeout, apply)
    actions += done
    if not streams(cluster, timeout):
        end = f"The end of its log:\n{cluster.log_tail()}"
        raise ServerError(f"the copy of {wanted['primary']} does not follow it. {end}")
    return actions


def last_words(cluster: Cluster) -> str:
    return str((cluster.log_tail(1).strip().splitlines() or ["its log is empty"])[-1])


def unmask(cluster: Cluster) -> None:
    """Give back what a promotion has taken from a former primary."""
    if os.path.islink(f"/etc/systemd/system/{cluster.unit}"):
        subprocess.run(["systemctl", "unmask", "--quiet", cluster.unit], check=True)
