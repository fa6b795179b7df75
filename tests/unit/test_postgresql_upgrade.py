"""A major upgrade of PostgreSQL: what stands in its way, what each run has to do, what counts as a difference."""

from __future__ import annotations

import copy
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_inventory as inventory
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_server as server
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade as upgrade
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_host as host
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_plan as plan
from ansible_collections.shipshape.droplet.plugins.modules import postgresql_promotion as promotion
from ansible_collections.shipshape.droplet.plugins.modules import postgresql_upgrade as module
from ansible_collections.shipshape.droplet.plugins.plugin_utils.fields import OPERATOR_VARIABLES

MB = plan.MB
FOUND: dict[str, Any] = {
    "version": "15.20", "recovery": False, "superuser": "postgres", "replicas": [], "slots": [], "prepared": [],
    "tablespaces": [], "beside": [], "altered": [], "mode": "copy", "bytes": 1000 * MB, "free": 9000 * MB,
    "extensions": {"shop": ["plpgsql", "pgcrypto"], "postgres": ["plpgsql"]},
    "available": ["plpgsql", "pgcrypto"], "backups": {"last-success": 3.0},
}  # fmt: skip
TABLE = {"rows": 10, "bytes": 8192}
INVENTORY: dict[str, Any] = {
    "roles": {"shop": "digest of attributes and verifier"},
    "databases": {
        "shop": {
            "like": "shop UTF8 C.UTF-8", "extensions": ["pgcrypto"], "objects": {"indexes": 3}, "invalid": [],
            "tables": {"public.orders": {**TABLE}, "public.items": {**TABLE}},
        }
    },
}  # fmt: skip


def note(phase: str, mode: str = "copy", **more: Any) -> plan.Note:
    return {"from": "15", "to": "16", "phase": phase, "mode": mode, "said": {"when": "noon"}, **more}


def test_nothing_stands_in_the_way_of_a_plain_cluster_with_a_backup() -> None:
    assert plan.obstacles(FOUND, "16", 26) == []
    assert plan.remarks(FOUND, "16") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": ["standby (10.0.0.3)"]}, "standby (10.0.0.3). They cannot follow to another version"),
        (
            {"slots": [{"name": "feed", "type": "logical", "active": False}]},
            "logical replication slot feed would be lost",
        ),
        ({"slots": [{"name": "feed", "type": "physical", "active": True}]}, "SELECT pg_drop_replication_slot('feed')"),
        ({"slots": [{"name": "shipshape_two", "type": "physical", "active": True}]}, "replication slot shipshape_two"),
        ({"prepared": ["bank-7"]}, "prepared transactions are open: bank-7"),
        ({"tablespaces": ["fast"]}, "tablespaces of your own, fast"),
        ({"beside": ["15/restored"]}, "restored beside the live one: 15/restored"),
        ({"superuser": "admin"}, "the first role of the cluster is admin"),
        ({"recovery": True}, "this server is a replica"),
        ({"available": ["plpgsql"]}, "extension pgcrypto (database shop) is not installed for 16"),
        ({"free": 1500 * MB}, "1500 MB left, and 1562 MB are needed for 1000 MB of data"),
        ({"backups": {"last-success": 30.0}}, "the last backup is 30 hours old, and 26 are allowed"),
        ({"backups": {"last-success": None}}, "there is no backup to come back to. Make one: playbooks/backup.yml"),
        ({"backups": {}}, "The inventory has no `backup`"),
    ],
)
def test_each_obstacle_is_named_with_what_to_do(changes: dict[str, Any], words: str) -> None:
    lines = plan.obstacles({**FOUND, **changes}, "16", 26)
    assert len(lines) == 1 and words in lines[0], lines


def test_the_slot_of_a_former_replica_of_ours_stands_in_nobodys_way() -> None:
    assert (
        plan.obstacles({**FOUND, "slots": [{"name": "shipshape_two", "type": "physical", "active": False}]}, "16", 26)
        == []
    )


def test_a_host_with_a_replica_is_refused_with_its_name_and_what_to_do_and_so_is_the_replica() -> None:
    plan.require_no_replicas({}, "15")
    plan.require_no_replicas({"name": "one", "record": "one 1", "peers": []}, "15")
    with pytest.raises(plan.Refused) as refused:
        plan.require_no_replicas({"name": "one", "peers": [{"name": "two"}, {"name": "three"}]}, "15")
    said = str(refused.value)
    assert "one has replicas: two, three. They cannot follow it" in said and "pg_dropcluster --stop 15 main" in said
    assert "out of group database" in said and "put them back and run site.yml" in said
    with pytest.raises(plan.Refused, match="two is a replica of one: its data is a copy"):
        plan.require_no_replicas({"name": "two", "peers": [{"name": "one"}], "primary": "one"}, "15")


def test_the_newer_of_two_kinds_of_backup_counts_and_none_is_needed_where_that_is_said() -> None:
    assert plan.no_backup({"nightly": 40.0, "pgbackrest": 2.0}, 26) == []
    assert plan.no_backup({}, 0) == []


def test_links_and_clones_need_no_room_for_a_second_copy_and_a_full_disk_names_the_way_without_one() -> None:
    full = {**FOUND, "free": 600 * MB}
    assert "link=true" in plan.obstacles(full, "16", 26)[0]
    assert plan.obstacles({**full, "mode": "link"}, "16", 26) == []
    assert plan.obstacles({**full, "mode": "clone"}, "16", 26) == []


def test_what_cannot_be_known_before_the_installation_is_a_remark_and_no_obstacle() -> None:
    found = {**FOUND, "available": None, "altered": ["work_mem"]}
    assert plan.obstacles(found, "16", 26) == []
    said = plan.remarks(found, "16")
    assert "ALTER SYSTEM are left behind: work_mem" in said[0] and "16 is not installed yet" in said[1]


@pytest.mark.parametrize(
    ("written", "live", "expected"),
    [
        ({}, ["15"], (plan.BEGIN, "15")),
        ({}, ["16"], (plan.NOTHING, "16")),
        ({}, [], (plan.NOTHING, "16")),
        (note(plan.PREPARED), ["15", "16"], (plan.BEGIN, "15")),
        (note(plan.STOPPED), ["15", "16"], (plan.PUT_BACK, "15")),
        # Killed while the start at boot went over: neither of the two has it.
        (note(plan.SWITCHED), [], (plan.FINISH, "15")),
        (note(plan.SWITCHED), ["16"], (plan.FINISH, "15")),
        (note(plan.DONE), ["16"], (plan.NOTHING, "16")),
        (note(plan.RETURNED), ["15"], (plan.BEGIN, "15")),
    ],
)
def test_a_run_goes_on_where_the_last_one_has_stopped(
    written: plan.Note, live: list[str], expected: tuple[str, str]
) -> None:
    assert plan.decide(written, "16", live) == expected


def test_the_next_upgrade_starts_from_where_the_last_has_led() -> None:
    assert plan.decide(note(plan.DONE), "17", ["16"]) == (plan.BEGIN, "16")


@pytest.mark.parametrize(
    ("written", "wanted", "live", "words"),
    [
        ({}, "16", ["15", "16"], "a cluster 16/main beside 15/main already, and this playbook has not made it"),
        (note(plan.DONE), "16", ["15", "16"], "this playbook has not made it"),
        ({}, "16", ["13", "15"], "which holds the data"),
        ({}, "13", ["15"], "An upgrade goes up"),
        (note(plan.DONE), "15", ["16"], "or -e back=true"),
        (note(plan.STOPPED), "17", ["15"], "from 15 to 16 is half done, and postgresql_version is '17'"),
        (note(plan.RETURNING), "16", ["15"], "the way back from 16 to 15 is half done"),
    ],
)
def test_what_is_not_clear_is_refused(written: plan.Note, wanted: str, live: list[str], words: str) -> None:
    with pytest.raises(plan.Refused, match=words):
        plan.decide(written, wanted, live)


def test_the_way_back_leads_from_a_finished_and_from_an_unfinished_upgrade_and_is_walked_once() -> None:
    for phase in (plan.SWITCHED, plan.DONE, plan.RETURNING):
        assert plan.decide_return(note(phase)) == plan.RETURN
    assert plan.decide_return(note(plan.RETURNED)) == plan.NOTHING
    unfit: plan.Note
    for unfit in ({}, note(plan.PREPARED), note(plan.STOPPED)):
        with pytest.raises(plan.Refused, match="no upgrade on this host to go back from"):
            plan.decide_return(unfit)
    with pytest.raises(plan.Refused, match="both clusters are the same files"):
        plan.decide_return(note(plan.DONE, mode="link"))


def changed(path: list[str], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(INVENTORY)
    where: Any = found
    for key in path[:-1]:
        where = where[key]
    if value is None:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return found


SHOP = ["databases", "shop"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["roles", "shop"], "another digest", "role shop has other attributes, memberships or another password"),
        (["roles", "shop"], None, "role shop is missing"),
        (["roles", "guest"], "digest", "role guest was not there before"),
        (SHOP, None, "database shop is missing"),
        ([*SHOP, "like"], "postgres UTF8 C.UTF-8", "database shop has another owner, encoding or locale"),
        ([*SHOP, "extensions"], [], "database shop: extension pgcrypto is missing"),
        ([*SHOP, "objects"], {"indexes": 2}, "database shop: indexes: 3 before, 2 after"),
        ([*SHOP, "invalid"], ["orders_pkey"], "database shop: index orders_pkey is not valid"),
        ([*SHOP, "tables", "public.orders"], None, "database shop: table public.orders is missing"),
        ([*SHOP, "tables", "public.orders", "rows"], 9, "table public.orders: 10 rows before, 9 after"),
        ([*SHOP, "tables", "public.orders", "bytes"], 0, "table public.orders: 8192 bytes before, 0 after"),
    ],
)
def test_whatever_is_not_the_same_after_the_copy_is_found(path: list[str], value: Any, words: str) -> None:
    assert inventory.differences(INVENTORY, INVENTORY) == []
    lines = inventory.differences(INVENTORY, changed(path, value))
    assert len(lines) == 1 and words in lines[0], lines


def test_rows_that_were_not_counted_are_compared_by_the_size_of_their_file() -> None:
    uncounted = changed([*SHOP, "tables"], {"public.orders": {"rows": None, "bytes": 8192}})
    shorter = copy.deepcopy(uncounted)
    shorter["databases"]["shop"]["tables"]["public.orders"]["bytes"] = 0
    assert inventory.differences(uncounted, copy.deepcopy(uncounted)) == []
    assert "8192 bytes before, 0 after" in inventory.differences(uncounted, shorter)[0]
    assert "too large to count the rows" in inventory.summary(uncounted)
    assert inventory.summary(INVENTORY) == "1 roles with their passwords, 1 databases, 2 tables, 20 rows"


def test_what_was_written_since_is_told_once_by_table_and_a_new_role_or_an_emptied_table_too() -> None:
    now = changed([*SHOP, "tables", "public.orders"], {"rows": 12, "bytes": 16384})
    now["databases"]["shop"]["tables"]["public.items"] = {"rows": 0, "bytes": 0}
    now["roles"]["guest"] = "digest"
    lines = inventory.written({"shop": {"public.orders": 2}}, inventory.differences(INVENTORY, now, sizes=False))
    assert lines == [
        "database shop: 2 rows written in public.orders",
        "role guest was not there before",
        "database shop: table public.items: 10 rows before, 0 after",
    ]
    # A table that was only vacuumed is no loss.
    assert inventory.differences(INVENTORY, changed([*SHOP, "tables", "public.orders", "bytes"], 0), sizes=False) == []


def test_a_new_cluster_is_made_as_the_old_one_is() -> None:
    template = {"encoding": "UTF8", "collate": "en_US.UTF-8", "ctype": "C.UTF-8"}
    settings = {"lc_messages": "", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C"}
    options = plan.locale_options(template, settings)
    assert options[:6] == ["--encoding", "UTF8", "--lc-collate", "en_US.UTF-8", "--lc-ctype", "C.UTF-8"]
    assert options[6:8] == ["--lc-messages", "en_US.UTF-8"]
    found = {"segment_mb": 16, "checksums": True, "template": template}
    assert plan.initdb_options(found, "14") == ["--wal-segsize", "16", "--data-checksums"]
    assert "--locale-provider=libc" in plan.initdb_options(found, "16")
    bare = {**found, "checksums": False, "template": {**template, "provider": "i", "locale": "de-DE"}}
    assert plan.initdb_options(bare, "18")[2:] == [
        "--no-data-checksums",
        "--locale-provider=icu",
        "--icu-locale=de-DE",
    ]


def test_the_report_says_how_long_apps_waited_and_how_to_go_back_unless_there_is_no_way() -> None:
    said = {
        "when": "2026-11-26 02:00:00 UTC",
        "from": "15.20",
        "to": "16.14",
        "bytes": 41 * MB,
        "compared": "all of it",
    }
    text = "\n".join(plan.report(note(plan.DONE, down=7.3, said=said)))
    assert "PostgreSQL 15.20 -> 16.14 (copy)" in text and "without the database for 7.3 s" in text
    assert "-e back=true" in text and "pg_dropcluster 15 main" in text and "41 MB" in text
    linked = "\n".join(plan.report(note(plan.DONE, mode="link", down=2.0, said=said)))
    assert "no way back" in linked and "-e back=true" not in linked


@pytest.fixture
def configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(server, "CONFIGURATIONS", str(tmp_path))
    return tmp_path


def cluster(configurations: Path, name: str, start: str) -> None:
    folder = configurations / name
    folder.mkdir(parents=True)
    (folder / "postgresql.conf").touch()
    if start:
        (folder / "start.conf").write_text(start)


def test_another_version_is_refused_with_both_and_the_playbook_that_moves_the_data(configurations: Path) -> None:
    assert server.another_version("16") == ""
    cluster(configurations, "15/main", "# Automatic startup configuration\nauto\n")
    assert server.another_version("15") == ""
    said = server.another_version("16")
    assert "postgresql_version is 16, and this host has cluster 15/main" in said and "Nothing was changed" in said
    assert "playbooks/maintenance/upgrade_postgresql.yml" in said and "set postgresql_version to '15'" in said
    # There is no upgrade downwards.
    assert "upgrade_postgresql.yml" not in server.another_version("13")


def test_a_cluster_that_is_kept_and_disabled_stands_in_nobodys_way(configurations: Path) -> None:
    cluster(configurations, "15/main", "# Written by an upgrade.\ndisabled # for good\n")
    cluster(configurations, "16/main", "")
    assert server.another_version("16") == "" and server.live_versions() == ["16"]
    assert "15" not in server.clusters_in_use() and "16/main" in server.another_version("15")


def test_what_the_playbook_takes_from_the_command_line_is_not_taken_for_a_typing_error_in_the_inventory() -> None:
    playbook = (Path(__file__).parents[2] / plan.PLAYBOOK).read_text(encoding="utf-8")
    names = set(re.findall(r"-e (\w+)=", playbook))
    assert {"back", "accept_loss", "prepare"} <= names <= OPERATOR_VARIABLES


class Steps:
    """An upgrade of which each step is only noted; one of them fails."""

    old_version, wanted = "15", "16"

    def __init__(self, written: plan.Note, failing: str = "", lost: list[str] | None = None) -> None:
        self.note, self.failing, self._lost = written, failing, lost or []
        self.done: list[str] = []

    def _step(self, name: str) -> None:
        self.done.append(name)
        if name == self.failing:
            raise host.Failed("the disk is full")

    def switch(self) -> None:
        self._step("switch")

    def put_back(self) -> None:
        self._step("put back")

    def lost(self) -> list[str]:
        return self._lost

    def give_back(self) -> float:
        self._step("give back")
        return 2.04


@pytest.mark.parametrize(
    ("reached", "back"),
    [
        (note(plan.STOPPED), True),
        (note(plan.STOPPED, mode="link"), True),
        # Compared, and nobody was let in yet.
        (note(plan.SWITCHED), True),
        # From its start on, the new server has written into the files of the old one.
        (note(plan.SWITCHED, mode="link"), False),
        # It was started for all, and they may have written.
        (note(plan.SWITCHED, opened=True), False),
    ],
)
def test_a_switch_that_fails_ends_with_the_old_server_until_the_new_one_may_have_been_written_to(
    reached: plan.Note, back: bool
) -> None:
    steps = Steps(reached, failing="switch")
    words = "the disk is full\n.*" + ("15/main, serves again, as it was" if back else "in version 16: mend that")
    with pytest.raises(host.Failed, match=words):
        module.switch(steps)
    assert steps.done == ["switch"] + ["put back"] * back


class Asked:
    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.check_mode, self.params = check_mode, params


def test_the_way_back_is_not_taken_over_what_was_written_since_unless_that_is_said() -> None:
    lost = [f"database shop: 1 rows written in public.t{number}" for number in range(25)]
    steps = Steps(note(plan.DONE), lost=lost)
    with pytest.raises(plan.Refused) as refused:
        module.go_back(Asked(accept_loss=False), steps)
    said = str(refused.value)
    assert "public.t19" in said and "public.t20" not in said and "… and 5 more" in said and "accept_loss=true" in said
    assert module.go_back(Asked(check_mode=True, accept_loss=True), steps)["changed"] and steps.done == []
    result = module.go_back(Asked(accept_loss=True), steps)
    text = "\n".join(result["said"])
    assert steps.done == ["give back"] and "without the database for 2.0 s" in text and "public.t24" in text
    assert "set postgresql_version to '15'" in text


def test_the_way_back_is_walked_once_and_says_what_the_inventory_has_to_say() -> None:
    steps = Steps(note(plan.RETURNED))
    result = module.go_back(Asked(accept_loss=False), steps)
    assert not result["changed"] and "set postgresql_version to '15'" in result["said"][0] and steps.done == []


def test_whether_a_cluster_starts_is_written_whole_and_only_when_it_changes(
    configurations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "owned_by_postgres", lambda _path: None)
    cluster(configurations, "15/main", "")
    file = configurations / "15" / "main" / "start.conf"
    host.set_start(server.Cluster("15"), "auto")  # which it is without the file
    assert not file.exists()
    host.set_start(server.Cluster("15"), "disabled")
    assert server.start_mode(str(file.parent)) == "disabled" and server.live_versions() == []
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(".new")] == []


def test_a_second_run_waits_for_the_first_and_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LOCK", str(tmp_path / "lock"))
    with host.alone():
        with pytest.raises(host.Failed, match="still at work on the host"):
            with host.alone(seconds=0):
                pass
    with host.alone(seconds=0):
        pass


def test_a_backup_that_never_succeeded_has_no_age(tmp_path: Path) -> None:
    file = tmp_path / "last-success"
    assert host.hours_since(str(file)) is None
    file.touch()
    os.utime(file, (time.time() - 7200,) * 2)
    assert host.hours_since(str(file)) == pytest.approx(2, abs=0.01)


def test_a_note_that_cannot_be_read_is_an_error_and_one_that_is_not_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "NOTE", str(tmp_path / "upgrade.json"))
    assert upgrade.read_note() == {}
    for text in ("{", "[]"):
        (tmp_path / "upgrade.json").write_text(text)
        with pytest.raises(host.Failed, match="which says how far an upgrade has come, cannot be read"):
            upgrade.read_note()


def test_a_promotion_takes_the_cluster_in_use_and_not_the_one_that_an_upgrade_has_kept(configurations: Path) -> None:
    cluster(configurations, "15/main", "disabled\n")
    cluster(configurations, "16/main", "auto\n")
    found = promotion.local(Asked(step="look"))
    assert found and found.version == "16"
