"""The program around pgBackRest: which moment it restores from what, what it says, what a monitor reads."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "roles" / "pgbackrest" / "files"))

import shipshape_pgbackrest.__main__ as program
import shipshape_pgbackrest.drill as drill
import shipshape_pgbackrest.mail as mail
import shipshape_pgbackrest.promote as promote
import shipshape_pgbackrest.restore as restore
import shipshape_pgbackrest.run as run
import shipshape_pgbackrest.side as side
import shipshape_pgbackrest.tool as tool
import shipshape_pgbackrest.unattended as unattended
import shipshape_pgbackrest.watch as watch

UTC = datetime.timezone.utc
NOON = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> tool.Settings:
    for name in ("state", "etc/15/main/conf.d", "data/15/main/pg_wal/archive_status"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pgbackrest.conf").write_text("repo1-cipher-pass=pass'word 1\nrepo1-s3-key-secret=s3cret\n")
    (tmp_path / "webhook").write_text("\n")
    values = {
        "host": "db-1", "repository": "s3:s3.test/b/pgbackrest/db-1", "recovery_days": 7, "archive_timeout_seconds": 60,
        "pgbackrest_configuration": str(tmp_path / "pgbackrest.conf"), "postgresql_version": "15", "behind_minutes": 10,
        "postgresql_port": 5432, "timeout_minutes": 1, "jitter_minutes": 0, "mail": "",
        "state_directory": str(tmp_path / "state"),
        "lock_file": str(tmp_path / "lock"), "clusters_directory": str(tmp_path / "data"),
        "configurations_directory": str(tmp_path / "etc"),
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tool.Settings(tmp_path)


def backup(label: str, hour: int) -> dict[str, Any]:
    return {"label": label, "timestamp": {"stop": NOON.replace(hour=hour).timestamp()}}


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-11-26 02:00 UTC", 2),
        ("2026-11-26 02:00", 2),
        ("2026-11-26T02:00:00Z", 2),
        ("2026-11-26 02:00:00+0200", 0),
        ("2026-11-26 02:00 +02", 0),
        ("2026-11-26 02:00:00 +02:00", 0),
        ("2026-11-26", 0),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, hour: int) -> None:
    assert restore.moment(text) == datetime.datetime(2026, 11, 26, hour, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "26.11.2026", "2026-13-01", ""])
def test_what_is_no_time_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(unattended.Failure, match="write it as '2026-01-31 02:00'"):
        restore.moment(text)


def test_of_the_minute_that_a_loss_may_cost_a_quarter_is_left_to_the_server_and_the_store() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "pgbackrest" / "defaults" / "main.yml").read_text())
    assert defaults["pgbackrest_archive_timeout"] <= 45
    assert defaults["pgbackrest_export_postgresql_settings"]["archive_timeout"] == "{{ pgbackrest_archive_timeout }}"


def test_the_last_backup_before_the_moment_is_taken() -> None:
    backups = [backup("a", 1), backup("b", 5), backup("c", 9)]
    chosen = [restore.choose(backups, NOON.replace(hour=hour), NOON)["label"] for hour in (2, 6, 12)]
    assert chosen == ["a", "b", "c"]
    assert restore.choose(backups, None, NOON)["label"] == "c"
    # At that very second it may not have been whole yet.
    assert restore.choose(backups, NOON.replace(hour=5), NOON)["label"] == "a"


def test_moments_that_cannot_be_restored_are_refused_with_those_that_can() -> None:
    backups = [backup("a", 1)]
    span = "possible is every moment from 2026-11-26 01:00:00 UTC to 2026-11-26 12:00:00 UTC"
    with pytest.raises(
        unattended.Failure, match=f"2026-11-26 00:00:00 UTC is before the end of the first backup; {span}"
    ):
        restore.choose(backups, NOON.replace(hour=0), NOON)
    with pytest.raises(unattended.Failure, match=f"2026-11-26 13:00:00 UTC is in the future; {span}"):
        restore.choose(backups, NOON.replace(hour=13), NOON)
    with pytest.raises(unattended.Failure, match="no backup yet"):
        restore.choose([], None, NOON)


def test_a_backup_that_another_major_version_has_written_is_not_restored_here() -> None:
    restore.require_version({**backup("a", 1), "version": "15"}, "15")
    with pytest.raises(
        unattended.Failure, match=r"a, is of PostgreSQL 13, and this server is 15.*postgresql_version '13'"
    ):
        restore.require_version({**backup("a", 1), "version": "13"}, "15")


BEFORE, AFTER = {"id": 1, "version": "13", "system-id": 7}, {"id": 2, "version": "15", "system-id": 8}


@pytest.mark.parametrize(
    ("known", "backed_up", "asked", "runs"),
    [
        ([BEFORE], 1, ["stanza-upgrade", "check"], 1),
        # Moved, and killed before its backup was made.
        ([BEFORE, AFTER], 1, ["stanza-upgrade"], 1),
        ([BEFORE, AFTER], 2, ["stanza-upgrade"], 0),
        # Never opened: another command makes it.
        ([], None, [], 0),
    ],
)
def test_the_repository_goes_on_with_a_cluster_that_was_moved_and_backs_it_up_in_full_once(
    settings: tool.Settings,
    monkeypatch: pytest.MonkeyPatch,
    known: list[dict[str, Any]],
    backed_up: int | None,
    asked: list[str],
    runs: int,
) -> None:
    commands: list[str] = []
    kinds: list[str] = []
    known = list(known)

    def pgbackrest(command: str) -> str:
        commands.append(command)
        if command == "stanza-upgrade" and AFTER in known:
            return "P00   INFO: stanza 'main' on repo1 is already up to date"
        if command == "stanza-upgrade":
            known.append(AFTER)
        return ""

    def back_up(_settings: tool.Settings, kind: str, scheduled: bool) -> int:
        kinds.append(kind)
        return 0

    backups = [{**backup("a", 1), "database": {"id": backed_up}}] if backed_up else []
    monkeypatch.setattr(program, "info", lambda: {"db": known, "backup": backups})
    monkeypatch.setattr(program, "system_identifier", lambda _settings: "8")
    monkeypatch.setattr(program, "pgbackrest", pgbackrest)
    monkeypatch.setattr(program, "run", back_up)
    assert program.upgrade(settings) == 0
    assert (commands, kinds) == (asked, ["full"] * runs)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("P00  ERROR: [031]: CryptoError: cipher header invalid", "backup_password does not open it"),
        ("P00  ERROR: [029]: unable to load info file: FormatError: x at line 1: \x01\x02", "does not open it"),
        (
            "P00  INFO: --ca-file=/certificates\nP00  ERROR: [055]: unable to open missing",
            "no repository in that bucket",
        ),
        (
            "P00  ERROR: [025]: new backup label '20261126-0200F' is not later than latest backup label '2027'",
            "set back",
        ),
        (
            "P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n<Code>QuotaExceeded</Code>",
            "the bucket is full",
        ),
        ("P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n<Code>RequestTimeTooSkewed</Code>", "clock"),
        (
            "P00  ERROR: [095]: unable to load info file: CryptoError: unable to verify certificate presented by "
            "'s3.test:443': [10] certificate has expired",
            "certificate has expired. Whoever",
        ),
        ("P00  ERROR: [095]: unable to verify certificate: [9] certificate is not yet valid", "clock is behind"),
        ("P00  ERROR: [095]: unable to verify certificate: [20] unable to get local issuer", "not trusted"),
        ("P00  ERROR: [041]: unable to write: [28] No space left on device", "a disk of this host is full"),
        ("P00  ERROR: [039]: HTTP request failed with 403 (Forbidden):\n*** Path/Query ***", "refuses the keys"),
        ("P00  ERROR: [049]: unable to get address for 'nowhere.test': [-2] Name", "cannot be reached"),
        ("P00  ERROR: [028]: backup info and archive info do not match the database", "of another cluster"),
        ("P00  ERROR: [082]: WAL segment 0001 was not archived before the 60000ms timeout", "does not reach"),
    ],
)
def test_what_pgbackrest_says_is_told_in_words(output: str, words: str) -> None:
    said = tool.meaning("2026-11-26 05:00:00.123 " + output, 1)
    assert words in said and "ERROR: [" in said and "2026-11-26" not in said and "\x01" not in said


def test_no_secret_is_in_a_message(settings: tool.Settings) -> None:
    assert settings.scrub("key s3cret, password pass'word 1") == "key (secret), password (secret)"


def test_a_failure_goes_by_mail_too_without_a_secret(settings: tool.Settings, monkeypatch: Any) -> None:
    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(mail, "send", lambda *letter: sent.append(letter))
    unattended.cry(settings, "The archive is behind:", ["s3cret"])
    assert sent == []
    settings.mail = "ops@shop.test"
    unattended.cry(settings, "The archive is behind:", ["s3cret"])
    assert sent == [("ops@shop.test", "The archive is behind", "The archive is behind:\n• (secret)")]


def test_a_second_backup_is_refused_and_says_who_is_at_it(settings: tool.Settings) -> None:
    with tool.lock(settings, "backup"):
        with pytest.raises(unattended.Busy, match=rf"another backup is running: process {os.getpid()}, since 20"):
            with tool.lock(settings, "backup"):
                pass
        with tool.lock(settings, "restore"):  # beside a backup
            pass


def test_what_cron_begins_waits_for_a_moment_of_its_jitter_and_what_an_operator_begins_does_not(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def made(_settings: Any, kind: str, report: dict[str, Any]) -> None:
        report.update(label="20261126-013000F", type=kind, bytes=1, stored=1)

    monkeypatch.setattr(run, "back_up", made)
    settings.jitter_minutes = 5
    for _ in range(2):
        assert run.run(settings, "diff", scheduled=True) == 0
    assert len(set(slept)) == 2 and all(0 <= seconds <= 300 for seconds in slept) and max(slept) > 1
    assert run.run(settings, "diff", scheduled=False) == 0 and len(slept) == 2


def test_only_what_gives_back_what_was_written_counts() -> None:
    assert not run.BAD.search("P00   INFO: stanza: main\nstatus: ok\n  archiveId: 15-1, total WAL checked: 3\n"
                              "    missing: 0, checksum invalid: 0, size invalid: 0, other: 0")  # fmt: skip
    for line in (
        "status: error",
        "backup: 20261126-000000F, status: invalid, files",
        "checksum invalid: 1, size",
    ):
        assert run.BAD.search(line)


def waits(settings: tool.Settings, name: str, minutes: float) -> None:
    path = settings.data / "pg_wal" / "archive_status" / name
    path.touch()
    then = time.time() - minutes * 60
    os.utime(path, (then, then))


def test_a_log_that_waits_is_told_once_and_so_is_its_end(settings: tool.Settings, capsys: Any) -> None:
    assert watch.watch(settings) == 0
    until = datetime.datetime.fromisoformat((settings.state / "archived-until").read_text().strip())
    assert 55 < (unattended.now() - until).total_seconds() < 65
    waits(settings, "000000010000000000000002.done", 500)
    waits(settings, "000000010000000000000003.ready", 11)
    waits(settings, "000000010000000000000004.ready", 1)
    assert (watch.watch(settings), watch.watch(settings)) == (1, 1)
    assert capsys.readouterr().err.count("2 segments of the log wait on the droplet") == 1
    until = datetime.datetime.fromisoformat((settings.state / "archived-until").read_text().strip())
    assert 10.9 < (unattended.now() - until).total_seconds() / 60 < 11.1
    for path in (settings.data / "pg_wal" / "archive_status").glob("*.ready"):
        path.unlink()
    assert (watch.watch(settings), watch.watch(settings)) == (0, 0)
    assert capsys.readouterr().err.count("nothing waits any more") == 1


def test_each_line_of_a_log_is_looked_at_once_also_when_the_log_was_begun_anew(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", dict[str, Any]()
    assert not watch.dropped_since(log, seen)
    log.write_text("WARN: dropped WAL file '0001' because archive queue exceeded 4GB\n")
    assert [watch.dropped_since(log, seen) for _ in range(2)] == [True, False]
    with log.open("a") as stream:
        stream.write("all is well\n")
    assert not watch.dropped_since(log, seen)
    log.write_text("WARN: dropped WAL file '0002'\n")
    assert watch.dropped_since(log, seen)


def test_what_was_thrown_away_is_never_said_to_be_archived_until_a_backup_closes_the_gap(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(watch, "LOG", settings.state / "log")
    until = settings.state / "archived-until"
    known = NOON.isoformat()
    until.write_text(known + "\n")
    watch.LOG.write_text("WARN: dropped WAL file '0001' because archive queue exceeded 4GB\n")
    for _ in range(2):
        watch.watch(settings)  # though nothing waits any more
        assert until.read_text().strip() == known and watch.archived_until(settings) == NOON
    assert capsys.readouterr().err.count("From here on no moment can be restored until the next backup") == 1
    watch.close_the_gap(settings)
    assert "every moment up to 2026-11-26 12:00:00 UTC, and from this backup's end on" in capsys.readouterr().err
    watch.close_the_gap(settings)
    assert watch.watch(settings) == 0 and capsys.readouterr().err == ""
    assert watch.archived_until(settings) > NOON


def test_a_gap_that_no_look_has_seen_is_told_by_the_backup_that_closes_it(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(watch, "LOG", settings.state / "log")
    watch.LOG.write_text("WARN: dropped WAL file '0001'\n")
    (settings.state / "archived-until").write_text(NOON.isoformat() + "\n")
    watch.close_the_gap(settings)
    assert "every moment up to 2026-11-26 12:00:00 UTC" in capsys.readouterr().err


def test_why_the_log_waits_is_told_in_the_words_of_any_other_fault(
    settings: tool.Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(watch, "LOG", settings.state / "log")
    assert watch.why_not_archived() == ""
    begun = "2026-11-26 14:00:00.000 P00   INFO: archive-push:async command begin 2.45: [pg_wal]\n"
    refused = (
        "2026-11-26 14:00:01.000 P01   WARN: could not push WAL file '0003' to the archive (will be retried): [39] "
        "HTTP request failed with 403 (Forbidden):\n    *** Response Content ***:\n    <Code>QuotaExceeded</Code>\n"
    )
    done = "2026-11-26 14:00:02.000 P00   INFO: archive-push:async command end: completed successfully\n"
    for text, full in (
        (begun + refused + done, True),
        (begun + refused + done + begun, True),
        (begun + refused + done + begun + done, False),
    ):
        watch.LOG.write_text(text)
        assert ("the bucket is full: its quota is used up" in watch.why_not_archived()) is full
    watch.LOG.write_text(
        begun + "2026-11-26 14:00:01.000 P00  ERROR: [049]: unable to get address for 's3.test'\n" + done
    )
    waits(settings, "000000010000000000000003.ready", 11)
    assert watch.watch(settings) == 1
    assert "would be, too. the store cannot be reached. Check endpoint" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["main", "../x", "", "A", "a b"])
def test_a_cluster_beside_the_live_one_has_a_name_of_its_own(settings: tool.Settings, name: str) -> None:
    with pytest.raises(unattended.Failure, match="is no name for a cluster"):
        side.Side(settings, name)


def test_nothing_of_others_is_overwritten_or_removed(settings: tool.Settings) -> None:
    theirs = side.Side(settings, "theirs")
    theirs.data.mkdir()
    with pytest.raises(unattended.Failure, match="exists and is not overwritten"):
        theirs.require_free()
    with pytest.raises(unattended.Failure, match="there is no restored cluster theirs"):
        theirs.remove()
    assert theirs.data.exists()


def restored(settings: tool.Settings) -> side.Side:
    new = side.Side(settings, "restored")
    new.data.mkdir()
    (new.data / "postgresql.auto.conf").write_text(
        "restore_command = 'x'\nrecovery_target_time = 'y'\nwork_mem = '1MB'\n"
    )
    (settings.data / "old").touch()
    return new


def test_a_cluster_beside_the_live_one_neither_archives_nor_waits_for_the_live_ones_replicas(
    settings: tool.Settings, monkeypatch: Any
) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    live = settings.configurations / "main" / "conf.d"
    (live / "shipshape.conf").write_text("archive_mode = on\n")
    (live / "shipshape_synchronous.conf").write_text("synchronous_standby_names = 'ANY 1 (shipshape_two)'\n")
    beside = restored(settings)
    (beside.data / "postgresql.auto.conf").write_text("archive_mode = 'on'\n")
    shutil.rmtree(beside.configuration, ignore_errors=True)
    beside.configure(5433)
    # PostgreSQL takes the last word of the folder, by name.
    found: dict[str, str] = {}
    for path in sorted((beside.configuration / "conf.d").glob("*.conf")):
        found.update(line.split(" = ") for line in path.read_text().splitlines() if " = " in line)
    assert (found["archive_mode"], found["synchronous_standby_names"], found["port"]) == ("off", "''", "5433")


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_exchange_that_was_killed_anywhere_is_finished_by_the_next(settings: tool.Settings, done: int) -> None:
    new, kept = restored(settings), settings.clusters / "main_before"
    if done > 0:
        os.rename(settings.data, kept)
    if done > 1:
        new.forget_the_restore()
        os.rename(new.data, settings.data)
    promote.prepare(new)
    promote.exchange(new, kept)
    assert (settings.data / "postgresql.auto.conf").read_text() == "work_mem = '1MB'\n"
    assert (kept / "old").exists() and not new.data.exists()


def test_a_live_cluster_that_is_lost_is_not_kept(settings: tool.Settings) -> None:
    new, kept = restored(settings), settings.clusters / "main_before"
    shutil.rmtree(settings.data)
    promote.exchange(new, kept)
    assert settings.data.exists() and not kept.exists()


def row(rows: int, writes: int = 0, newest: str = "2026") -> dict[str, dict[str, Any]]:
    return {"shop: orders": {"rows": rows, "writes": writes, "newest": [newest]}}


@pytest.mark.parametrize(
    ("before", "restored", "after", "problem"),
    [
        (row(5), row(5), row(5), ""),
        (row(5), row(4), row(5), "has 4 rows where the live one has 5"),
        (row(5), row(5, newest="2025"), row(5), r"are \['2025'\] where the live ones are \['2026'\]"),
        (row(5, 10), row(6), row(8, 13, "2027"), ""),
        (row(5, 10), row(12), row(8, 13), "has 12 rows where"),
        (row(5), {}, row(5), "is not in what was restored"),
        (row(5), {}, {}, ""),
    ],
)
def test_a_drill_allows_for_what_was_written_meanwhile_and_for_nothing_else(
    before: Any, restored: Any, after: Any, problem: str
) -> None:
    found = drill.compare(before, restored, after)
    assert (len(found), bool(problem)) in ((0, False), (1, True))
    assert re.search(problem, "".join(found))
