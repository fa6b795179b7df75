"""A droplet that takes the place of a lost one: what is refused, what comes back in which order, how it goes on."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.splitter import parse_kv
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan
from ansible_collections.shipshape.droplet.plugins.module_utils import rebuild as model
from ansible_collections.shipshape.droplet.plugins.plugin_utils import report

from tests.unit.test_wiring import Wired

ROOT = Path(__file__).parents[2]
for role in ("backup", "pgbackrest"):
    sys.path.insert(0, str(ROOT / "roles" / role / "files"))

import shipshape_backup.__main__ as backup_program
import shipshape_backup.rebuild as files
import shipshape_backup.store as store
import shipshape_backup.unattended as backup_unattended
import shipshape_pgbackrest.__main__ as server_program
import shipshape_pgbackrest.promote as promote
import shipshape_pgbackrest.rebuild as server
import shipshape_pgbackrest.side as side
import shipshape_pgbackrest.tool as tool
import shipshape_pgbackrest.unattended as server_unattended

NOON = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.timezone.utc)


# ---- from which moment, and whether


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latest", "latest"),
        ("2026-11-25T02:00", "2026-11-25T02:00:00+00:00"),
        ("2026-11-25 02:00 UTC", "2026-11-25T02:00:00+00:00"),
        ("2026-11-25 02:00:30Z", "2026-11-25T02:00:30+00:00"),
        ("2026-11-25 02:00 +0530", "2026-11-24T20:30:00+00:00"),
        ("2026-11-25", "2026-11-25T00:00:00+00:00"),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, wanted: str) -> None:
    assert model.moment(text, NOON) == wanted


@pytest.mark.parametrize("text", ["", "malar1", "yesterday", "2026-13-01", "25.11.2026", "latest backup"])
def test_what_is_no_moment_is_refused_with_what_to_say_of_another_name(text: str) -> None:
    with pytest.raises(model.Refused, match=r"latest or a time such as '2026-01-31 02:00'.*\n?.*backup_prefix: NAME"):
        model.moment(text, NOON)


def test_a_moment_to_come_is_refused() -> None:
    with pytest.raises(model.Refused, match="2026-11-26 12:01:00 UTC, which is in the future"):
        model.moment("2026-11-26 12:01", NOON)


def test_a_rebuild_goes_on_from_the_same_moment_alone() -> None:
    begun: dict[str, Any] = {"from": "latest", "started": "2026-11-26T02:00:00+00:00", "finished": None}
    assert not model.goes_on({}, "latest")
    assert model.goes_on(begun, "latest")
    with pytest.raises(
        model.Refused, match="in the middle of being rebuilt from latest, and restore_from is 2026-11-25"
    ):
        model.goes_on(begun, "2026-11-25T00:00:00+00:00")
    with pytest.raises(model.Refused, match=r"was rebuilt from latest on 2026.*playbooks/restore.yml"):
        model.goes_on({**begun, "finished": "2026-11-26T02:10:00+00:00"}, "2026-11-25T00:00:00+00:00")


def test_a_droplet_with_data_is_refused_by_what_it_has_and_with_what_to_do() -> None:
    said = model.refusal(["database shop has 3 tables", "/var/lib/shipshape/shop has 12 files"])
    assert said and "database shop has 3 tables; /var/lib/shipshape/shop has 12 files. Nothing was changed." in said
    assert all(word in said for word in ("without restore_from", "playbooks/restore.yml", "--limit"))
    assert model.refusal([]) is None


def test_data_is_seen_also_where_no_server_answers(tmp_path: Path) -> None:
    for name in ("1", "4", "13756", "16384", "16401", "pgsql_tmp"):
        (tmp_path / "base" / name).mkdir(parents=True)
    assert model.databases_on_disk(str(tmp_path)) == 2
    assert model.databases_on_disk(str(tmp_path / "gone")) == 0
    (tmp_path / "uploads" / "a").mkdir(parents=True)
    assert model.count_files(str(tmp_path / "uploads")) == 0
    (tmp_path / "uploads" / "a" / "photo").touch()
    assert model.count_files(str(tmp_path / "uploads")) == 1


def test_the_mark_is_written_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "rebuild.json")
    assert model.read_mark(path) == {}
    model.write_mark({"from": "latest"}, path)
    assert model.read_mark(path) == {"from": "latest"} and os.listdir(tmp_path / "new") == ["rebuild.json"]


# ---- files and dumps


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A droplet in the middle of it, with a repository of one backup of files."""
    monkeypatch.setenv("PATH", f"{Path(__file__).parent / 'backup_fakes'}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("store/tree/etc/shipshape/postgresql", "state", "etc"):
        (tmp_path / name).mkdir(parents=True)
    values = {
        "repository": str(tmp_path / "store"), "host": "shop-1", "databases": ["shop"], "paths": ["/etc/shipshape"],
        "exclude": [], "keep": {}, "timeout_minutes": 1, "jitter_minutes": 0,
        "state_directory": str(tmp_path / "state"), "cache_directory": str(tmp_path / "cache"),
        "lock_file": str(tmp_path / "lock"), "mail": "", "server_copy": "", "places": [],
    }  # fmt: skip
    (tmp_path / "etc" / "config.json").write_text(json.dumps(values))
    (tmp_path / "etc" / "credentials.env").write_text("RESTIC_PASSWORD=pa55word\n")
    snapshot = {"id": "f" * 64, "time": "2026-11-26T02:00:05.1Z", "tags": ["shipshape", "files"]}
    (tmp_path / "store" / "f.snapshot").write_text(json.dumps(snapshot))
    (tmp_path / "store/tree/etc/shipshape/postgresql/shop.password").write_text("of the lost one\n")
    mark(tmp_path)
    return tmp_path / "etc"


def mark(folder: Path, finished: str | None = None) -> None:
    begun: dict[str, Any] = {
        "from": "latest",
        "started": "2026-11-26T10:00:00+00:00",
        "finished": finished,
        "restored": [],
    }
    (folder / "rebuild.json").write_text(json.dumps(begun))


def program(etc: Path, *arguments: str) -> int:
    code: int = backup_program.main(["--configuration", str(etc), *arguments])
    return code


def test_files_go_to_their_places_and_what_this_run_has_written_stays(etc: Path, tmp_path: Path) -> None:
    tree, root = tmp_path / "store" / "tree", tmp_path / "root"
    (tree / "etc/shipshape/backup").mkdir()
    (tree / "etc/shipshape/backup/credentials.env").write_text("keys of last year")
    (tree / "etc/shipshape/tls").mkdir(mode=0o711)
    (tree / "etc/shipshape/tls/shop").symlink_to("/etc/letsencrypt/live/shop")
    (root / "etc/shipshape/backup").mkdir(parents=True)
    (root / "etc/shipshape/backup/credentials.env").write_text("keys of today")
    restic = files.Reader(store.Settings(etc))
    result = files.put_files_back(restic, "latest", root)
    assert (result["files"], result["kept"], result["taken"]) == (2, 1, "2026-11-26 02:00:05")
    assert (root / "etc/shipshape/backup/credentials.env").read_text() == "keys of today"
    assert (root / "etc/shipshape/postgresql/shop.password").read_text() == "of the lost one\n"
    assert os.readlink(root / "etc/shipshape/tls/shop") == "/etc/letsencrypt/live/shop"
    assert (root / "etc/shipshape/tls").stat().st_mode & 0o777 == 0o711
    assert not (tmp_path / "state" / "rebuild").exists()
    # The lock of a machine that died in the middle of a backup does not keep it from being read.
    assert all("--no-lock" in call for call in (tmp_path / "store" / "calls").read_text().splitlines())


def test_files_are_put_back_whole_after_a_kill_in_the_middle(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (tmp_path / "store/tree/etc/shipshape/zz").write_text("last")
    (root / "etc").mkdir(parents=True)
    carry = files.carry
    moved: list[Path] = []

    def once(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        carry(source, target)

    restic = files.Reader(store.Settings(etc))
    monkeypatch.setattr(files, "carry", once)
    with pytest.raises(KeyboardInterrupt):
        files.put_files_back(restic, "latest", root)
    monkeypatch.setattr(files, "carry", carry)
    assert files.put_files_back(restic, "latest", root)["files"] == 1
    assert (root / "etc/shipshape/zz").read_text() == "last"
    assert (root / "etc/shipshape/postgresql/shop.password").exists()


def test_what_lies_on_another_disk_is_copied_with_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from").write_text("photo")
    (tmp_path / "from").chmod(0o640)
    rename = os.rename

    def across(source: Path, target: Path) -> None:
        if Path(source).name == "from":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", across)
    files.carry(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").read_text() == "photo" and (tmp_path / "to").stat().st_mode & 0o777 == 0o640


def test_a_directory_is_not_put_where_something_else_is(tmp_path: Path) -> None:
    (tmp_path / "from" / "etc").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "etc").write_text("a file")
    with pytest.raises(backup_unattended.Failure, match="is to be a directory"):
        files.merge(tmp_path / "from", tmp_path / "to")


def test_while_it_gets_back_what_it_had_a_droplet_stores_nothing(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "drill"):
        assert program(etc, command) == backup_program.BUSY
        assert "getting back what it had" in capsys.readouterr().err
    # Afterwards, and on any other droplet, it does.
    mark(etc.parent, finished="2026-11-26T10:05:00+00:00")
    assert program(etc, "run") != backup_program.BUSY


def test_a_rebuild_makes_no_repository_and_says_how_one_is_found(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = "Fatal: unable to open config file: Stat: The specified key does not exist."
    (etc.parent / "store" / "faults.json").write_text(json.dumps({"cat": absent}))
    assert program(etc, "open") == 1
    said = capsys.readouterr().err
    assert "nothing was ever backed up to" in said and "backup_prefix: NAME" in said
    assert "init" not in (etc.parent / "store" / "calls").read_text()


def test_a_rebuild_is_site_ymls_to_begin(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark(etc.parent, finished="2026-11-26T10:05:00+00:00")
    assert program(etc, "rebuild", "files") == 1
    assert "site.yml -e restore_from=latest" in capsys.readouterr().err


def test_a_database_gets_its_name_once_it_is_whole_and_counts_as_loaded(
    etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def psql(statement: str, database: str = "postgres", **variables: str) -> str:
        asked.append((statement, variables))
        return "0" if statement == files.TABLES else ""

    def restored(_restic: Any, name: str, wanted: str, into: str) -> dict[str, Any]:
        assert (name, wanted, into) == ("shop", "latest", "shop_rebuild")
        return {"taken": "2026-11-26T02:00:00", "snapshot": "1a2b", "tables": 3, "bytes": 9, "seconds": 0.1}

    monkeypatch.setattr(files, "psql", psql)
    monkeypatch.setattr(files, "exists", lambda name: True)
    monkeypatch.setattr(files, "restore_database", restored)
    assert program(etc, "rebuild", "databases") == 0
    said = capsys.readouterr().out
    assert "database shop as it was at 2026-11-26 02:00:00 UTC (snapshot 1a2b): 3 tables" in said
    statement, variables = asked[-1]
    assert statement.index("COMMENT") < statement.index("DROP DATABASE") < statement.index("RENAME")
    assert variables["comment"].startswith(postgresql_plan.LOADED)
    # Typed again, it says the same and does nothing.
    before = len(asked)
    assert program(etc, "rebuild", "databases") == 0
    assert capsys.readouterr().out == said and len(asked) == before


def test_tables_that_are_from_no_backup_are_not_dropped(
    etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped: list[str] = []

    def psql(statement: str, database: str = "postgres", **_variables: str) -> str:
        dropped.extend([statement] if "DROP" in statement else [])
        return "2" if statement == files.TABLES else ""

    monkeypatch.setattr(files, "psql", psql)
    monkeypatch.setattr(files, "exists", lambda name: True)
    assert program(etc, "rebuild", "databases") == 1
    assert "database shop has tables that are from no backup" in capsys.readouterr().err and not dropped


# ---- the database server


@pytest.fixture
def settings(tmp_path: Path) -> tool.Settings:
    for name in ("state", "etc/15/main", "data/15/main/pg_wal/archive_status"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("pgbackrest.conf", "webhook"):
        (tmp_path / name).write_text("\n")
    values = {
        "host": "db-1", "repository": "s3:s3.test/b/pgbackrest/db-1", "recovery_days": 7, "archive_timeout_seconds": 60,
        "pgbackrest_configuration": str(tmp_path / "pgbackrest.conf"), "postgresql_version": "15", "behind_minutes": 10,
        "postgresql_port": 5432, "timeout_minutes": 1, "jitter_minutes": 0, "mail": "",
        "state_directory": str(tmp_path / "state"),
        "lock_file": str(tmp_path / "lock"), "clusters_directory": str(tmp_path / "data"),
        "configurations_directory": str(tmp_path / "etc"),
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    mark(tmp_path)
    return tool.Settings(tmp_path)


def stanza(version: str = "15", stopped: datetime.datetime = NOON) -> dict[str, Any]:
    backup = {"label": "20261126-013000F", "version": version, "timestamp": {"stop": stopped.timestamp()}}
    return {"backup": [backup]}


RESULT = {
    "up_to": "2026-11-26 01:59:58 UTC", "wanted": "latest", "whole": True, "backup": "20261126-013000F",
    "databases": "postgres, shop", "bytes": 9, "seconds": 2.0,
}  # fmt: skip


@pytest.fixture
def steps(settings: tool.Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a rebuild does, in its order; the restore leaves a cluster beside, the promotion moves it."""
    done: list[str] = []

    def restore(_settings: Any, to: str, name: str) -> dict[str, Any]:
        done.append(f"restore {to}")
        (settings.clusters / name).mkdir()
        return dict(RESULT)

    def promoted(_settings: Any, name: str) -> dict[str, Any]:
        done.append("promote")
        time.sleep(0.1)
        os.rename(settings.data, settings.clusters / "main_before_20261126T100000")
        os.rename(settings.clusters / name, settings.data)
        return {}

    monkeypatch.setattr(server, "info", stanza)
    monkeypatch.setattr(server, "restore", restore)
    monkeypatch.setattr(promote, "promote", promoted)
    monkeypatch.setattr(server, "control", lambda unit, verb: done.append(f"{verb} {unit}"))
    return done


def test_the_server_is_restored_beside_and_takes_the_pristine_ones_place(
    settings: tool.Settings, steps: list[str]
) -> None:
    result = server.rebuild(settings, "latest")
    assert steps == ["stop postgresql@15-main.service", "restore latest", "promote"]
    assert [path.name for path in settings.clusters.iterdir()] == ["main"]
    assert "all that was committed up to 2026-11-26 01:59:58 UTC (wanted: latest), from backup" in server.words(result)
    assert server.rebuild(settings, "latest") == result and len(steps) == 3


def test_a_rebuild_that_was_killed_after_the_restore_does_not_restore_again(
    settings: tool.Settings, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted = promote.promote

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promote, "promote", killed)
    with pytest.raises(KeyboardInterrupt):
        server.rebuild(settings, "latest")
    monkeypatch.setattr(promote, "promote", promoted)
    del steps[:]
    assert server.rebuild(settings, "latest")["promoted"]
    assert steps == ["promote"]


def test_an_archive_that_ends_before_the_moment_is_said_to(settings: tool.Settings) -> None:
    assert "; the archive ends there)" in server.words({**RESULT, "whole": False})


def test_another_major_version_is_refused_before_anything_is_fetched(
    settings: tool.Settings, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "info", lambda: stanza("14"))
    with pytest.raises(
        server_unattended.Failure, match=r"of PostgreSQL 14, and this droplet has 15.*postgresql_version: '14'"
    ):
        server.rebuild(settings, "latest")
    assert steps == []


def test_where_no_backup_of_the_server_is_the_dumps_are_named(
    settings: tool.Settings, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "info", lambda: {"backup": []})
    with pytest.raises(server_unattended.Failure, match="-e restore_dumps=true"):
        server.rebuild(settings, "latest")
    assert steps == []


def test_the_servers_program_backs_nothing_up_meanwhile(
    settings: tool.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("run", "watch", "drill"):
        assert server_program.main(["--configuration", str(settings.pgbackrest.parent), command]) == server_program.BUSY
        assert "getting back what it had" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rebuilt", "stopped", "asked", "anew"),
    [
        (None, NOON, ["stanza-create", "check"], False),
        (NOON, NOON - datetime.timedelta(hours=1), ["stanza-create", "check"], True),
        (NOON, NOON + datetime.timedelta(hours=1), ["stanza-create", "check"], False),
    ],
)
def test_after_a_rebuild_a_backup_is_made_at_once(
    settings: tool.Settings,
    monkeypatch: pytest.MonkeyPatch,
    rebuilt: datetime.datetime | None,
    stopped: datetime.datetime,
    asked: list[str],
    anew: bool,
) -> None:
    mark(settings.state.parent, finished=rebuilt.isoformat() if rebuilt else None)
    calls: list[str] = []
    monkeypatch.setattr(server, "pgbackrest", lambda command: calls.append(command))
    monkeypatch.setattr(server, "info", lambda: stanza(stopped=stopped))
    assert (server.open_stanza(settings), calls) == (anew, asked)


@pytest.mark.parametrize("rebuilt", [True, False])
def test_a_cluster_made_anew_goes_on_in_the_repository_only_after_a_rebuild(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch, rebuilt: bool
) -> None:
    mark(settings.state.parent, finished=NOON.isoformat() if rebuilt else None)
    calls: list[str] = []

    def pgbackrest(command: str) -> None:
        calls.append(command)
        if command == "stanza-create":
            raise server_unattended.Failure(
                tool.meaning("ERROR: [028]: backup and archive info files do not match the database", 28)
            )

    monkeypatch.setattr(server, "pgbackrest", pgbackrest)
    monkeypatch.setattr(server, "info", lambda: stanza(stopped=NOON - datetime.timedelta(days=1)))
    if rebuilt:
        assert server.open_stanza(settings) and calls == ["stanza-create", "stanza-upgrade", "check"]
    else:
        with pytest.raises(server_unattended.Failure, match="restore_from=latest"):
            server.open_stanza(settings)
        assert calls == ["stanza-create"]


def test_the_history_of_the_new_timeline_goes_to_the_repository(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = side.Side(settings, "rebuilt")
    log = beside.data / "pg_wal"
    (log / "archive_status").mkdir(parents=True)
    for name in ("00000002.history", "00000003.history", "archive_status/00000002.history.done"):
        (log / name).touch()
    monkeypatch.setattr(shutil, "chown", lambda *_: None)
    beside.archive_history()
    # The second timeline came out of the repository; the third was begun here.
    assert sorted(path.name for path in (log / "archive_status").iterdir()) == [
        "00000002.history.done",
        "00000003.history.ready",
    ]


# ---- the run


def test_the_end_of_the_run_says_what_came_back_and_how_long_all_of_it_took() -> None:
    state = {"from": "latest", "started": "2026-11-26T02:00:00+00:00", "finished": "2026-11-26T02:03:00+00:00"}
    now = datetime.datetime(2026, 11, 26, 2, 7, 30, tzinfo=datetime.timezone.utc)
    assert report.rebuild_lines({**state, "restored": ["files …", "database …"]}, now) == [
        "restored     files …",
        "restored     database …",
        "rebuilt      from latest, in 450 s, since 2026-11-26 02:00:00 UTC",
    ]
    assert report.rebuild_lines({}, now) == []
    assert "not finished" in report.rebuild_lines({**state, "finished": None}, now)[-1]


def test_a_run_without_restore_from_meets_one_condition_and_files_come_before_passwords() -> None:
    tasks = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())[1]["tasks"]
    names = [task["name"] for task in tasks]
    task = tasks[names.index("Rebuild")]
    assert task["when"] == "restore_from is defined" and names.index("Rebuild") < names.index("Packages")
    inside = yaml.safe_load((ROOT / "playbooks" / "tasks" / "rebuild.yml").read_text())
    order = [step["name"] for step in next(row["block"] for row in inside if "block" in row)]
    put = order.index("Rebuild | Put the files back, passwords and certificates among them")
    assert order.index("Backup") < put < order.index("PostgreSQL") < order.index("Rebuild | Put the databases back")
    # Before it is known that the droplet is bare nothing changes.
    assert inside[1]["shipshape.droplet.rebuild"]["state"] == "begun" and inside[1]["any_errors_fatal"]


def test_a_time_with_a_space_is_the_whole_time_also_without_quotes_of_its_own(tmp_path: Path) -> None:
    """`-e restore_from="2026-11-25 02:00"` comes to Ansible without the quotes, and it splits at the space."""
    said = parse_kv("restore_from=2026-11-25 02:00")
    wired = Wired(tmp_path, "db1", **said)
    assert wired["restore_from ~ shipshape_rest_of_time"] == "2026-11-25 02:00"
    assert Wired(tmp_path, "db1")["shipshape_rest_of_time"] == ""
    for playbook, count in (("restore.yml", 3), ("tasks/rebuild.yml", 2)):
        text = (ROOT / "playbooks" / playbook).read_text()
        assert text.count(" ~ shipshape_rest_of_time") == count


def test_databases_come_by_the_log_where_there_is_one_and_by_dumps_where_they_are_asked_for(tmp_path: Path) -> None:
    assert Wired(tmp_path, "db1")["shipshape_rebuild_by_log"] is True
    assert Wired(tmp_path, "db1", restore_dumps="true")["shipshape_rebuild_by_log"] is False
    assert Wired(tmp_path, "app1", vault_that_is_nowhere="x")["shipshape_rebuild_by_log"] is False
