"""The judgement of a PostgreSQL server, each time with one thing changed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.verify_postgresql import postgresql

PATH = "/etc/postgresql/15/main/conf.d/shipshape.conf"
WANTED = {
    "version": "15",
    "settings": {"ssl": True, "work_mem": "5MB", "checkpoint_completion_target": 0.9},
    "roles": ["shop"],
}


def rule(line: int, kind: str, user: str, address: str, method: str) -> dict[str, Any]:
    return {"line": line, "type": kind, "users": [user], "address": address, "method": method, "error": None}


def server() -> dict[str, Any]:
    written = {"ssl": "on", "work_mem": "5MB", "checkpoint_completion_target": "0.9"}
    return {
        "error": "",
        "path": PATH,
        "data": "/var/lib/postgresql/15/main",
        "checksums": True,
        "settings": {
            name: {"value": value, "source": "configuration file", "from": PATH, "pending": False}
            for name, value in written.items()
        },
        "file": {name: {"setting": value} for name, value in written.items()},
        "hba": [
            rule(5, "local", "postgres", "", "peer"),
            rule(9, "host", "all", "127.0.0.1", "scram-sha-256"),
            rule(12, "hostssl", "shop", "10.0.0.2", "scram-sha-256"),
        ],
        "roles": {"shop": {"superuser": False, "bypassrls": False, "scram": True}},
        "replica": False,
        "receives": False,
        "senders": {},
    }


def found(state: Any, wanted: Any = WANTED) -> list[str]:
    return [str(finding) for finding in postgresql({"postgresql": state}, wanted)]


def test_a_server_that_is_as_declared_has_no_findings() -> None:
    assert found(server()) == []
    assert found({}, None) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": "no socket"}, "no answer: no socket; declared: version 15, running"),
        ({"checksums": False}, "pg_checksums --enable -D /var/lib/postgresql/15/main; systemctl start"),
        ({"settings.work_mem.pending": True}, "work_mem = 5MB, until the next restart"),
        ({"settings.work_mem.from": "/var/lib/x/postgresql.auto.conf"}, "`ALTER SYSTEM RESET work_mem`"),
        ({"file.ssl.setting": "off"}, f"ssl: off in {PATH}; declared: on"),
        ({"file.ssl": None}, f"ssl: nothing in {PATH}; declared: on"),
        ({"settings.work_mem": None}, "no setting work_mem"),
        ({"hba.1.method": "trust"}, "line 9 of pg_hba.conf lets all in by trust; declared: SCRAM alone"),
        ({"hba.2.method": "md5"}, "line 12 of pg_hba.conf lets shop in by md5"),
        ({"hba.2.type": "host"}, "line 12 of pg_hba.conf lets 10.0.0.2 in without TLS"),
        ({"hba.0.error": "nonsense"}, "line 5 of pg_hba.conf: nonsense"),
        ({"roles.shop.scram": False}, "a password of shop that is not kept by SCRAM"),
        ({"roles.shop.bypassrls": True}, "shop with bypassrls; declared: a role that row-level security binds"),
        ({"roles.shop": None}, "no role shop"),
    ],
)  # fmt: skip
def test_each_difference_is_found_alone(change: dict[str, Any], words: str) -> None:
    state: Any = server()
    for path, value in change.items():
        *above, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        part = state
        for step in above:
            part = part[step]
        part[last] = value
    (finding,) = found(state)
    assert words in finding


def test_a_rule_that_refuses_needs_no_tls() -> None:
    state = server()
    state["hba"][2].update(type="host", method="reject")
    assert found(state) == []


PRIMARY = {**WANTED, "replication": {"name": "db1", "peers": [{"name": "db2", "address": "10.0.0.2"}]}}
REPLICA = {
    **WANTED,
    "replication": {"name": "db2", "primary": "db1", "peers": [{"name": "db1", "address": "10.0.0.1"}]},
}


@pytest.mark.parametrize(
    ("wanted", "state", "words"),
    [
        (PRIMARY, {"senders": {"shipshape_db2": 0}}, ""),
        (PRIMARY, {}, "no replica on db2; declared: one that streams from here"),
        (PRIMARY, {"senders": {"shipshape_db2": 20000000}}, "the replica on db2 20000000 bytes behind"),
        (PRIMARY, {"replica": True}, "a replica; declared: the primary"),
        (REPLICA, {"replica": True, "receives": True}, ""),
        (REPLICA, {"replica": True}, "a replica that does not follow db1"),
        (REPLICA, {}, "data of its own; declared: a replica of db1"),
    ],
)
def test_a_replica_that_does_not_keep_up_is_found_on_both_sides(wanted: Any, state: dict[str, Any], words: str) -> None:
    said = found({**server(), **state}, wanted)
    assert len(said) == 1 and words in said[0] if words else said == []


def test_a_smaller_replica_may_be_as_large_as_its_primary() -> None:
    state: Any = {**server(), "replica": True, "receives": True}
    state["settings"]["work_mem"]["from"] = PATH.replace("shipshape.conf", "shipshape_standby.conf")
    assert found(state, REPLICA) == []
    assert found({**state, "replica": False}, WANTED)
