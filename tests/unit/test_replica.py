"""A primary and its replicas: who is which, what each is given, and when one may be promoted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import pytest
import yaml
from ansible_collections.shipshape.droplet.plugins.filter.plan import (
    promotion_refusal,
    promotion_replicas,
    records,
    replica_to_promote,
)
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_replication as replication
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_standby as standby
from ansible_collections.shipshape.droplet.plugins.modules import postgresql_promotion as promotion
from ansible_collections.shipshape.droplet.plugins.plugin_utils.hosts import check_hosts
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology, UnknownPrimary, elect

ADDRESSES = {"web": "10.0.0.1", "db1": "10.0.0.2", "db2": "10.0.0.3"}
APPS: dict[str, Any] = {"shop": {"type": "command", "source": {"git": "x"}, "command": "x", "database": {"pool": 5}}}
GROUPS = {"app": ["web"], "database": ["db1", "db2"]}
NAMES: dict[str, Any] = {"primary": "db1", "to": "db2", "others": []}


def topology(primary: str = "", promotions: int = 0) -> Topology:
    return Topology((), ("web",), ("db1", "db2"), ADDRESSES, primary, promotions)


def hostvars(**notes: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: {"ansible_host": address} for name, address in ADDRESSES.items()}
    for host, note in notes.items():
        found[host]["shipshape_login"] = {"primary": note}
    return found


def test_the_latest_promotion_says_who_is_the_primary() -> None:
    members = ("db1", "db2")
    assert elect({}, members) == ("db1", 0)
    assert elect({"db1": "db1 0", "db2": ""}, members) == ("db1", 0)
    # db1 was away while db2 was promoted.
    assert elect({"db1": "db1 0", "db2": "db2 1"}, members) == ("db2", 1)
    assert elect({}, ()) == ("", 0)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({"db1": "db1 2", "db2": "db2 2"}, "do not agree on who is the primary"),
        ({"db2": "db9 1"}, "db2 says that the databases are on db9 .* not in group `database`: db1, db2"),
        ({"db2": "db2"}, "it has to be: NAME NUMBER"),
    ],
)
def test_notes_that_lead_nowhere_are_an_error_and_not_a_guess(notes: dict[str, str], said: str) -> None:
    with pytest.raises(UnknownPrimary, match=said):
        elect(notes, ("db1", "db2"))


def test_who_is_the_primary_is_known_of_hosts_that_a_run_leaves_out() -> None:
    known = hostvars()
    known["web"]["shipshape_login"] = {"primary": "", "others": {"db1": None, "db2": "db2 1"}}
    assert records(["db1", "db2"], known) == {"db2": "db2 1"}
    # A promotion between two logins.
    known["db2"]["shipshape_login"] = {"primary": "db1 0", "others": {}}
    assert records(["db1", "db2"], known) == {"db2": "db2 1"}
    # Before any login nobody knows, and nobody has to.
    assert records(["db1", "db2"], hostvars()) == {}


def test_nothing_is_decided_when_none_of_the_database_hosts_can_say_who_is_the_primary() -> None:
    known = hostvars()
    known["web"]["shipshape_login"] = {"primary": "", "others": {"db1": None, "db2": None}}
    with pytest.raises(UnknownPrimary, match=r"none of the database hosts \(db1, db2\) has said who is the primary"):
        records(["db1", "db2"], known)
    # A new one has nothing to say, and says so.
    known["web"]["shipshape_login"]["others"]["db2"] = ""
    assert elect(records(["db1", "db2"], known), ("db1", "db2")) == ("db1", 0)


def test_a_replica_is_given_what_its_primary_has_and_where_that_is() -> None:
    first, second = (plan(APPS, topology("db2", 1), host) for host in ("db1", "db2"))
    for key in ("postgresql_databases", "postgresql_roles", "postgresql_clients"):
        assert first[key] == second[key]
    assert first["postgresql_replication"] == {
        "name": "db1", "record": "db2 1", "peers": [{"name": "db2", "address": "10.0.0.3"}],
        "primary": "db2", "primary_address": "10.0.0.3",
    }  # fmt: skip
    assert "primary" not in second["postgresql_replication"]
    assert first["postgresql_listen_addresses"] == ["localhost", "10.0.0.2"]
    # Nothing has to be opened when it is promoted: app and peer may come to both.
    ports = {row["name"]: row["sources"] for row in second["hardening_contributed_firewall_rules"]}
    assert ports == {"postgresql": ["10.0.0.1/32", "10.0.0.2/32"], "pgbouncer": ["10.0.0.1/32"]}


def test_apps_go_where_the_primary_is() -> None:
    (row,) = plan_apps(APPS, topology("db2", 1), "web", {"shop": "secret"})
    assert row["env"]["DATABASE_URL"] == "postgresql://shop:secret@10.0.0.3:6432/shop"


def test_a_host_by_itself_has_neither_peers_nor_a_note_that_would_keep_its_name() -> None:
    alone = Topology((), ("db1",), ("db1",), {})
    assert plan({}, alone, "db1")["postgresql_replication"] == {"name": "db1", "record": "", "peers": []}
    promoted = Topology((), ("db2",), ("db2",), {}, "db2", 1)
    assert plan({}, promoted, "db2")["postgresql_replication"]["record"] == "db2 1"
    assert replication.settings({"name": "db1", "peers": []}) == {}


def test_redis_goes_with_the_databases_and_a_promotion_opens_no_port() -> None:
    apps = {"shop": {**APPS["shop"], "redis": ["cache"]}}
    first, second = (plan(apps, topology("db2", 1), host, redis={"cache": {}}) for host in ("db1", "db2"))
    assert [row["port"] for row in first["redis_instances"]] == [row["port"] for row in second["redis_instances"]]
    assert "redis-cache" in {row["name"] for row in first["hardening_contributed_firewall_rules"]}
    (row,) = plan_apps(apps, topology("db2", 1), "web", {"shop": "secret", "redis:shop": "other"}, redis={"cache": {}})
    assert "@10.0.0.3:" in row["env"]["REDIS_URL"]


def test_a_replica_proves_itself_by_tls_and_its_slot_has_a_limit() -> None:
    wanted = {"name": "db-2.example", "primary_address": "10.0.0.2", "peers": [{"name": "db1"}]}
    found = replication.settings(wanted)
    assert found["primary_slot_name"] == "shipshape_db_2_example" and found["max_slot_wal_keep_size"] == "2GB"
    assert "sslmode=require channel_binding=require" in found["primary_conninfo"]
    assert "password=" not in found["primary_conninfo"]


def test_slots_are_made_dropped_and_made_anew() -> None:
    def slot(active: bool = False, lost: bool = False) -> dict[str, bool]:
        return {"active": active, "lost": lost}

    done = replication.plan_slots({}, ["db2"])
    assert done == [
        ("create replication slot shipshape_db2", "SELECT pg_create_physical_replication_slot('shipshape_db2', true)")
    ]
    assert replication.plan_slots({"shipshape_db2": slot(active=True)}, ["db2"]) == []
    outrun = [summary for summary, _ in replication.plan_slots({"shipshape_db2": slot(lost=True)}, ["db2"])]
    assert outrun == ["drop the outrun replication slot shipshape_db2", "create replication slot shipshape_db2"]
    # What is not ours, or in use, stays.
    found = {"theirs": slot(), "shipshape_db3": slot(), "shipshape_db4": slot(active=True)}
    assert [summary for summary, _ in replication.plan_slots(found, [])] == ["drop replication slot shipshape_db3"]


def test_commits_wait_for_those_who_have_streamed_alone() -> None:
    assert replication.synchronous_names(["db2", "db3"], [], "") == ""
    assert replication.synchronous_names(["db2", "db3"], ["shipshape_db3"], "") == "ANY 1 (shipshape_db3)"
    kept = replication.synchronous_names(["db2"], [], "ANY 1 (shipshape_db2)")
    assert kept == "ANY 1 (shipshape_db2)"
    assert replication.synchronous_names([], ["shipshape_db2"], kept) == ""


def test_a_smaller_replica_has_at_least_what_its_primary_has() -> None:
    control = replication.controldata("max_connections setting:              100\nmax_worker_processes setting:  8\n")
    own = dict.fromkeys(replication.AT_LEAST.values(), 8)
    assert replication.raised(control, own) == {"max_connections": 100}


def test_the_replication_role_may_replicate_and_nothing_else() -> None:
    role = {"name": replication.ROLE, "password": "x" * 32, "replication": True}
    (action,) = planning.plan_roles(planning.State(15), [role])
    assert " REPLICATION " in action.sql and "NOREPLICATION" not in action.sql and "NOSUPERUSER" in action.sql


def looked(**said: dict[str, Any]) -> dict[str, Any]:
    """Variables of hosts that were looked at in a promotion; one that is None could not be reached."""
    return {host: {"shipshape_looked": found} if found else {} for host, found in said.items()}


def replica(position: str, age: float | None = 1.0) -> dict[str, Any]:
    return {"answers": True, "recovering": True, "position": position, "age": age}


def primary(position: str, *replicas: str) -> dict[str, Any]:
    return {"answers": True, "recovering": False, "position": position, "replicas": list(replicas)}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (primary("0/3000000", "shipshape_db2"), replica("0/2FFFF00"), ""),
        (primary("1/0", "shipshape_db2"), replica("0/F0000000"), "db2 is 268435456 bytes .* limit is 1024 "),
        # It follows another one, or nobody.
        (primary("0/3000000", "shipshape_db3"), replica("0/3000000"), "db2 is not connected to db1.*accept_loss=true"),
        ({}, replica("0/3000000", 20.0), ""),
        ({}, replica("0/3000000", 4000.0), "db1 does not answer.* from 4000 seconds ago.* accept_loss=true"),
        ({}, replica("0/3000000", None), "has no transaction at all"),
    ],
)
def test_a_replica_that_is_behind_is_refused_with_the_number(
    first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    found = promotion_refusal(looked(db1=first, db2=second), NAMES, 1024)
    assert re.search(said, found) if said else found == "", found


@pytest.mark.parametrize(
    ("third", "said"),
    [
        (replica("0/3000000"), ""),
        (replica("0/2000000"), ""),
        (replica("0/3000010"), "db3 has 16 bytes of the write-ahead log that db2 lacks.* -e to=db3"),
        ({"answers": False, "position": ""}, "and db3 does not answer either, and may have what db2 lacks"),
        ({}, "and db3 does not answer either"),
    ],
)
def test_where_no_primary_answers_a_replica_is_refused_that_may_lack_what_another_has_confirmed(
    third: dict[str, Any], said: str
) -> None:
    names = {**NAMES, "others": ["db3"]}
    known = looked(db1={}, db2=replica("0/3000000"), db3=third)
    found = promotion_refusal(known, names, 1024)
    assert re.search(said, found) if said else found == "", found
    assert promotion_refusal(known, names, 1024, True) == ""
    # A primary that answers stops only when all have everything.
    known["db1"] = looked(db1=primary("0/3000010", "shipshape_db2"))["db1"]
    assert promotion_refusal(known, names, 1024) == ""


def test_the_furthest_of_several_replicas_is_named() -> None:
    others = {"db2": "0/3000020", "db3": "0/3000040", "db4": ""}
    assert replication.further("0/3000000", others) == ("db3", 64)
    assert replication.further("0/3000040", others)[1] == 0 and replication.further("0/1", {}) == ("", 0)


def test_a_replica_that_does_not_answer_is_refused_whatever_loss_is_accepted() -> None:
    known = looked(db1=primary("0/3000000"), db2={"answers": False})
    for accept_loss in (False, True):
        assert "PostgreSQL on db2 does not answer" in promotion_refusal(known, NAMES, 1024, accept_loss)


def test_a_loss_that_is_accepted_is_no_reason() -> None:
    known = looked(db1=primary("1/0", "shipshape_db2"), db2=replica("0/1", None))
    assert promotion_refusal(known, NAMES, 1024)
    assert promotion_refusal(known, NAMES, 1024, True) == ""


def test_what_the_other_replicas_lack_is_kept_before_the_new_primary_can_throw_it_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    class Server:
        """Says what a replica without slots would, and remembers what it was told."""

        def query(self, sql: str) -> Any:
            return {} if sql == replication.SLOTS else "0/3000000"

        def execute(self, sql: str) -> str:
            said.append(sql.split("(")[0])
            return "t"

    class Asked:
        check_mode = False
        params: ClassVar[dict[str, Any]] = {"until": "", "timeout": 1, "peers": ["db3"]}

    monkeypatch.setattr(standby, "followed", lambda cluster: {"recovering": True})
    found = promotion.promote(Asked(), Server())
    assert found["actions"] == ["create replication slot shipshape_db3", "promote"]
    assert said == ["SELECT pg_create_physical_replication_slot", "SELECT pg_promote"]


def test_which_replicas_a_new_primary_has_is_said() -> None:
    three = {**NAMES, "others": ["db3", "db4"]}
    assert promotion_replicas(NAMES, ["db1", "db2"]) == "db2 has no replica"
    assert promotion_replicas(three, ["db2", "db3", "db4"]) == "only db3 and db4 will follow db2"
    assert promotion_replicas(three, ["db2", "db3"]) == "only db3 will follow db2 (db4 could not be reached)"
    assert promotion_replicas(three, ["db2"]) == "db2 has no replica (db3 and db4 could not be reached)"


def test_commits_cannot_wait_for_a_replica_that_nobody_has() -> None:
    variables = {"ansible_host": "164.92.130.7", "postgresql_synchronous": True}
    (problem,) = check_hosts({"db1": variables}, {"database": ["db1"]})
    assert problem.place == "postgresql_synchronous" and "a second droplet" in problem.wanted


def test_which_replica_is_meant_is_known_or_asked() -> None:
    assert replica_to_promote(GROUPS, hostvars(db1="db1 0")) == {
        "primary": "db1", "to": "db2", "others": [], "record": "db2 1", "problem": "",
    }  # fmt: skip
    assert "the primary already" in replica_to_promote(GROUPS, hostvars(), "db1")["problem"]
    assert "the replicas are: db2" in replica_to_promote(GROUPS, hostvars(), "db3")["problem"]
    three = {"database": ["db1", "db2", "web"]}
    assert "-e to=db2 or -e to=web" in replica_to_promote(three, hostvars())["problem"]
    assert replica_to_promote(three, hostvars(db2="db2 1"), "web")["others"] == ["db1"]
    assert "no replica to promote" in replica_to_promote({"database": ["db1"]}, hostvars())["problem"]


def test_a_promotion_without_another_replica_has_no_play_for_one() -> None:
    playbook = Path(__file__).resolve().parents[2] / "playbooks" / "promote.yml"
    *_, apps, last = yaml.safe_load(playbook.read_text())
    assert apps["ansible.builtin.import_playbook"] == "deploy.yml" and "tasks/replicas.yml" in str(last["tasks"])
    hosts = jinja2.Template(last["hosts"])
    assert hosts.render(groups={"shipshape_promoted": ["db2"]}) == "all:!all"
    both = {"shipshape_promoted": ["db2"], "shipshape_following": ["db3"]}
    assert hosts.render(groups=both) == "shipshape_promoted:shipshape_following"


@pytest.mark.parametrize("playbook", ["site", "database"])
def test_a_run_without_replicas_has_no_task_for_them(playbook: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "playbooks"
    *others, last = yaml.safe_load((folder / f"{playbook}.yml").read_text())
    assert "tasks/replicas.yml" in str(last["tasks"]) and "tasks/replicas.yml" not in str(others)
    hosts = jinja2.Template(last["hosts"])
    nobody = "all:!all"
    assert hosts.render(groups={}) == hosts.render(groups={"database": ["db1"]}) == nobody
    assert hosts.render(groups=GROUPS) == "database"
