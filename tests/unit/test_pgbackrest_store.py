"""The program around a real pgBackRest and a real PostgreSQL: the faults of a store, of a disk and of a clock.

After each of them what was stored is still there and can be restored, and the next run succeeds.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.lab import settings
from tests.unit import disk_lab, s3_lab
from tests.unit import pgbackrest_lab as lab
from tests.unit.test_backup_retention import SYSTEMS, Declared

sys.path.insert(0, str(lab.ROLE / "files"))

import shipshape_pgbackrest.__main__ as program
import shipshape_pgbackrest.mail as mail
import shipshape_pgbackrest.postgresql_contents as contents
import shipshape_pgbackrest.restore as restore
import shipshape_pgbackrest.unattended as unattended
import shipshape_pgbackrest.watch as watch

Capture = pytest.CaptureFixture[str]
Letters = list[tuple[str, str, str]]
#: So long after a backup's end begin the moments that are restored from it: its time is in whole seconds.
A_SECOND = 1.1


class Shop:
    """A host with a database, and its program."""

    def __init__(self, server: lab.Server, **values: Any) -> None:
        self.server = server
        self.state = server.root / "state"
        self.etc = server.program(**values)
        server.sql("CREATE TABLE orders (id serial PRIMARY KEY, taken timestamptz DEFAULT clock_timestamp())")

    def call(self, *arguments: str) -> int:
        code: int = program.main(["--configuration", str(self.etc), *arguments])
        return code

    def order(self, count: int = 1) -> str:
        """So many rows more; the moment after them."""
        self.server.sql(f"INSERT INTO orders SELECT FROM generate_series(1, {count})")
        moment = self.server.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
        time.sleep(0.01)
        return moment

    def orders(self, port: int | None = None) -> int:
        return int(self.server.sql("SELECT count(*) FROM orders", port))

    def backups(self) -> list[str]:
        (stanza,) = json.loads(self.server.pgbackrest("--output=json", "info"))
        return [backup["label"] for backup in stanza["backup"]]

    def restored(self, capsys: Capture, to: str = "latest") -> int:
        """How many rows there are in what is restored beside."""
        capsys.readouterr()
        assert self.call("restore", "--to", to, "--json") == 0, capsys.readouterr().err
        found = self.orders(json.loads(capsys.readouterr().out)["port"])
        assert self.call("drop") == 0
        return found

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "last.json").read_text())
        return found

    def archived_until(self) -> datetime:
        return datetime.fromisoformat((self.state / "archived-until").read_text().strip())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with lab.folder() as root:
        yield lab.template(root)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    """What was sent by mail."""
    sent: Letters = []
    monkeypatch.setattr(mail, "send", lambda *letter: sent.append(letter))
    return sent


@pytest.fixture
def here(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for a host that has the programs of the lab."""
    with lab.folder() as root:
        monkeypatch.setenv("PATH", f"{root}/bin:{os.environ['PATH']}")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)  # the lab's programs become PostgreSQL's user by themselves
        monkeypatch.setattr(pwd, "getpwnam", lambda name: lab.ACCOUNT)
        monkeypatch.setattr(restore.close_the_log, "__defaults__", (5,))  # seconds, for the log to arrive
        monkeypatch.setattr(watch, "LOG", root / "log" / "main-archive-push-async.log")
        yield root


@pytest.fixture
def bucket(here: Path) -> Iterator[s3_lab.Store]:
    (here / "buckets" / "bucket").mkdir(parents=True)
    with s3_lab.store(here / "buckets", here) as store:
        yield store


@pytest.fixture
def shop(here: Path, cluster: Path, bucket: s3_lab.Store) -> Iterator[Shop]:
    with lab.running(cluster, here, bucket) as server:
        yield Shop(server)


@pytest.fixture
def local_shop(here: Path, cluster: Path) -> Iterator[Shop]:
    """Whose repository is a directory, and whose clock can be set."""
    with lab.running(cluster, here, clock=True) as server:
        yield Shop(server)


def test_each_fault_of_the_store_is_told_in_its_own_words_and_the_next_run_succeeds(
    shop: Shop, bucket: s3_lab.Store, letters: Letters, capsys: Capture
) -> None:
    assert shop.call("run", "full") == 0
    before = shop.backups()
    for answer, words in (
        ((403, "RequestTimeTooSkewed", ""), "this host's clock is wrong, so the store refuses what it signs"),
        ((400, "AuthorizationHeaderMalformed", "the region 'fra1' is wrong"), "the bucket is in another region"),
        ((301, "PermanentRedirect", "use another endpoint"), "the bucket is in another region"),
        ((403, "SignatureDoesNotMatch", ""), "the store refuses the keys"),
        ((403, "QuotaExceeded", ""), "the bucket is full: its quota is used up. Nothing that was stored is lost"),
        ((404, "NoSuchBucket", ""), "there is no repository in that bucket. Check bucket of backup.s3"),
        ((503, "ServiceUnavailable", ""), "the store cannot be reached"),
    ):
        bucket.fault = lambda method, path, answer=answer: answer  # type: ignore[misc]
        assert shop.call("run") == 1
        said = capsys.readouterr().err
        assert words in said, said
        assert letters[-1][1] == "Backup of PostgreSQL on db-1 failed" and words in letters[-1][2]
    bucket.fault = lambda method, path: None
    good = bucket.certificate
    for begins, ends, words in (
        (-9, -1, "the store's certificate has expired. Whoever runs the store has to renew it"),
        (1, 9, "the store's certificate is not valid yet, so this host's clock is behind"),
    ):
        bucket.show(s3_lab.certificate(shop.server.root, timedelta(begins), timedelta(ends)))
        shop.server.configure()
        assert shop.call("run") == 1
        said = capsys.readouterr().err
        assert words in said, said
    bucket.show(good)
    shop.server.configure()
    assert set(before) <= set(shop.backups()) and shop.report()["status"] == "failed"
    assert shop.call("run") == 0
    assert len(shop.backups()) == 2 and lab.PASSWORD not in str(letters)


def test_from_a_bucket_that_takes_nothing_any_more_each_archived_moment_can_be_restored(
    shop: Shop, bucket: s3_lab.Store, capsys: Capture
) -> None:
    shop.order(5)
    assert shop.call("run", "full") == 0
    time.sleep(A_SECOND)
    moment = shop.order(7)
    shop.order()
    assert shop.call("run") == 0
    assert shop.call("watch") == 0
    bucket.fault = lambda method, path: (403, "QuotaExceeded", "") if method == "PUT" else None
    shop.order()
    assert shop.call("run") == 1
    assert "the bucket is full" in capsys.readouterr().err
    assert shop.restored(capsys, moment) == 12
    assert shop.call("restore") == 1
    said = capsys.readouterr().err
    assert "PostgreSQL's log does not reach the repository" in said and "can be restored: restore --to '20" in said
    bucket.fault = lambda method, path: None
    assert shop.call("run") == 0
    assert shop.restored(capsys) == 14


def test_while_the_network_is_away_the_database_serves_on_a_bounded_disk_and_all_is_told(
    shop: Shop, bucket: s3_lab.Store, letters: Letters, capsys: Capture
) -> None:
    """An hour of it in short: segments of 1 MB, of which eight may wait, and sixty are written."""
    queue = 8
    shop.server.configure(pgbackrest_archive_queue=f"{queue}MB")
    shop.order(5)
    assert shop.call("run", "full") == 0
    assert shop.call("watch") == 0
    time.sleep(A_SECOND)
    good = shop.order(2)
    shop.order()  # by which a recovery knows that it has come there
    shop.server.sql("SELECT pg_switch_wal()")
    wait_until(lambda: shop.server.waiting() == 0)
    reached = datetime.now(UTC)

    bucket.silent.set()
    began = time.monotonic()
    one = ("-c", "INSERT INTO orders DEFAULT VALUES", "-c", "SELECT pg_switch_wal()")
    shop.server.call("psql", "-XqAtw", "-p", str(shop.server.port), *one * 59)
    largest = shop.server.waiting()
    lost = shop.order()
    assert shop.orders() == 68  # it serves
    wait_until(lambda: "dropped WAL file" in watch.LOG.read_text())
    assert largest > queue / 2  # it was the queue that filled, and nothing quicker
    wait_until(lambda: shop.server.waiting() <= queue)
    shop.server.sql("CHECKPOINT")
    # What may wait, and what PostgreSQL keeps to write into again.
    assert len(list((shop.server.data / "pg_wal").glob("0*"))) <= queue + 16

    assert shop.call("run") == 1
    assert "the store cannot be reached" in capsys.readouterr().err
    wait_until(lambda: shop.server.waiting() == 0)
    shop.call("watch")
    assert ("ops@shop.test", "The archive of PostgreSQL on db-1 has a gap") in [letter[:2] for letter in letters]
    assert "From here on no moment can be restored until the next backup" in letters[-1][2]
    told = len(letters)
    shop.call("watch")
    assert len(letters) == told
    # A monitor sees that what was committed since is nowhere but here, however long nothing waits any more.
    assert shop.archived_until() <= reached + timedelta(seconds=time.monotonic() - began)
    assert (shop.state / "gap").exists()
    assert not (shop.state / "last-success").read_text().strip() > shop.report()["started"]

    bucket.silent.clear()
    capsys.readouterr()
    assert shop.call("restore") == 0
    assert "(wanted: latest; the archive ends there, before latest)" in capsys.readouterr().out
    assert shop.call("drop") == 0
    assert shop.call("run") == 0
    assert "closes the gap" in letters[-1][1] and not (shop.state / "gap").exists()
    shop.order()
    assert shop.restored(capsys) == 69
    assert shop.restored(capsys, good) == 7
    assert shop.call("restore", "--to", lost) == 1
    assert "the archive has a gap before that moment, so it cannot be reached" in capsys.readouterr().err
    assert shop.call("watch") == 0
    assert datetime.now(UTC) - shop.archived_until() < timedelta(minutes=2)


def test_a_run_that_waits_for_a_silent_store_is_stopped_and_leaves_nothing_behind(
    shop: Shop, bucket: s3_lab.Store, letters: Letters
) -> None:
    assert shop.call("run", "full") == 0
    shop.server.configure((r"io-timeout=.*", "io-timeout=30"))
    shop.server.program(timeout_minutes=0.05)
    bucket.silent.set()
    began = time.monotonic()
    assert shop.call("run") == 1
    assert time.monotonic() - began < 20
    assert "the backup was not done after 0.05 minutes and was stopped (pgbackrest_timeout_minutes)" in letters[-1][2]
    bucket.silent.clear()
    shop.server.program()
    assert shop.call("run") == 0


def test_beside_a_backup_that_somebody_makes_by_hand_the_programs_own_says_so_and_both_are_well(
    shop: Shop, bucket: s3_lab.Store, capsys: Capture
) -> None:
    assert shop.call("run", "full") == 0
    shop.server.configure((r"io-timeout=.*", "io-timeout=30"))
    held = threading.Event()
    bucket.fault = lambda method, path: nothing_before(held) if method == "PUT" and "/backup/" in path else None
    by_hand = subprocess.Popen([shop.server.root / "bin" / "pgbackrest", "--stanza=main", "--type=full", "backup"])
    wait_until(lambda: list((shop.server.root / "lock").glob("main-backup*.lock")) != [])
    assert shop.call("run") == 1
    assert "another pgBackRest is at work on this host" in capsys.readouterr().err
    held.set()
    assert by_hand.wait(60) == 0
    assert shop.call("run") == 0
    assert len(shop.backups()) == 3


def test_while_the_log_is_stored_the_repository_is_opened_all_the_same(local_shop: Shop, capsys: Capture) -> None:
    assert local_shop.call("run", "full") == 0
    with (local_shop.server.root / "lock" / "main-archive.lock").open("w") as lock:
        os.chown(lock.name, (local_shop.server.root / "lock").stat().st_uid, -1)
        fcntl.flock(lock, fcntl.LOCK_EX)
        release = threading.Timer(2, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        release.start()
        begun = time.monotonic()
        assert local_shop.call("open") == 0, capsys.readouterr().err
        assert 1 < time.monotonic() - begun < 30
        release.join()


def test_a_drill_checks_the_indexes_of_partitions_and_not_that_of_the_table_above_them(local_shop: Shop) -> None:
    def checked() -> int:
        # Each statement is one of its own, as the drill has them.
        return int([local_shop.server.sql(one) for one in contents.INDEXES.split(";") if one.strip()][-1])

    before = checked()
    local_shop.server.sql("CREATE TABLE visits (at date PRIMARY KEY) PARTITION BY RANGE (at)")
    for month in (1, 2):
        limits = f"FROM ('2026-0{month}-01') TO ('2026-0{month + 1}-01')"
        local_shop.server.sql(f"CREATE TABLE visits_{month} PARTITION OF visits FOR VALUES {limits}")
    assert checked() == before + 2


def test_a_segment_of_the_log_that_is_damaged_is_told_once_and_a_full_backup_begins_anew(
    local_shop: Shop, letters: Letters, capsys: Capture
) -> None:
    # pgBackRest reads what is damaged again after 15 seconds.
    local_shop.server.configure((r"io-timeout=.*", "io-timeout=0.5\njob-retry=0"))
    assert local_shop.call("run", "full") == 0
    time.sleep(A_SECOND)
    good = local_shop.order(3)
    for _ in range(2):
        local_shop.order()  # by which a recovery knows that it has come to that moment
        local_shop.server.sql("SELECT pg_switch_wal()")
    wait_until(lambda: local_shop.server.waiting() == 0)
    segments = sorted(local_shop.server.root.glob("repository/archive/main/*/*/0*-*"))
    whole = bytearray(segments[-1].read_bytes())
    whole[len(whole) // 2] ^= 255
    segments[-1].write_bytes(whole)
    lost = local_shop.order()
    assert local_shop.call("run") == 0
    name = segments[-1].name[:24]
    assert letters[-1][1] == "Older backups of PostgreSQL on db-1 are damaged" and name in letters[-1][2]
    assert local_shop.call("run") == 0
    assert len(letters) == 1 and local_shop.report()["damaged"] == [name]
    assert local_shop.restored(capsys, good) == 3
    assert local_shop.call("restore", "--to", lost) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert local_shop.restored(capsys) == 6


def test_a_backup_whose_own_base_is_damaged_is_none_until_a_full_one_begins_anew(
    local_shop: Shop, letters: Letters, capsys: Capture
) -> None:
    local_shop.server.configure((r"io-timeout=.*", "io-timeout=0.5\njob-retry=0"))
    local_shop.order(4)
    assert local_shop.call("run", "full") == 0
    (file,) = local_shop.server.root.glob("repository/backup/main/*F/pg_data/PG_VERSION*")
    file.write_bytes(os.urandom(file.stat().st_size))
    assert local_shop.call("run") == 1
    assert "shipshape-pgbackrest run full begins anew" in letters[-1][2]
    assert local_shop.call("run", "full") == 0
    assert letters[-1][1] == "Older backups of PostgreSQL on db-1 are damaged"
    assert local_shop.restored(capsys) == 4


def test_with_a_clock_that_was_set_back_no_backup_is_made_or_lost_and_later_ones_are(
    local_shop: Shop, letters: Letters
) -> None:
    for days in (0, 1):
        local_shop.server.set_clock(days)
        assert local_shop.call("run", "full") == 0
    before = local_shop.backups()
    local_shop.server.set_clock(-1)
    assert local_shop.call("run", "full") == 1
    assert "the newest backup is of a time to come: this host's clock was set back" in letters[-1][2]
    assert "timedatectl" in letters[-1][2] and local_shop.backups() == before
    local_shop.server.set_clock(1.1)
    assert local_shop.call("run") == 0
    assert local_shop.backups()[:2] == before and len(local_shop.backups()) == 3


def test_on_a_disk_without_room_nothing_is_restored_and_it_says_what_it_would_take(
    local_shop: Shop, letters: Letters, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_shop.call("run", "full") == 0
    usage = shutil.disk_usage(local_shop.server.root)._replace(free=200 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        assert local_shop.call("restore") == 1
        assert "has 200 MB left, and the restored cluster takes 5" in capsys.readouterr().err
        assert local_shop.call("drill") == 1
        assert (
            letters[-1][1] == "The restore drill of PostgreSQL on db-1 failed" and "has 200 MB left" in letters[-1][2]
        )
        assert local_shop.call("run") == 0  # which writes nothing here
    assert [path.name for path in local_shop.server.data.parent.iterdir()] == ["main"]
    assert not (local_shop.state / "last-drill-success").exists()
    assert local_shop.call("drill") == 0


def test_a_report_that_a_full_disk_does_not_take_is_told_and_the_backup_is_there(
    local_shop: Shop, letters: Letters
) -> None:
    (local_shop.state / "last.json.new").symlink_to("/dev/full")
    assert local_shop.call("run", "full") == 1
    assert "the report of the backup cannot be written to" in letters[0][2] and "No space left" in letters[0][2]
    assert len(local_shop.backups()) == 1 and not (local_shop.state / "last-success").exists()
    (local_shop.state / "last.json.new").unlink()
    assert local_shop.call("run") == 0


#: To the last byte, as where something else fills the disk quicker than the program looks; or ended before that.
LONGER = pytest.mark.skipif(not settings.EVERYTHING, reason="half a minute of them: make test-all")
FULL = pytest.mark.parametrize(
    "least",
    [pytest.param(0, id="to the last byte", marks=LONGER), pytest.param(unattended.LEAST, id="but for what is left")],
)
#: pgBackRest would try again after 15 seconds.
ONCE = (r"io-timeout=.*", "io-timeout=0.5\njob-retry=0")


def grow(shop: Shop, name: str) -> None:
    """By some megabytes that cannot be made smaller."""
    shop.server.sql(f"CREATE TABLE {name} AS SELECT md5(g::text || random()) FROM generate_series(1, 60000) AS g")


@FULL
def test_a_backup_into_a_directory_whose_disk_fills_up_gives_the_room_back_and_the_next_one_succeeds(
    least: int, here: Path, cluster: Path, letters: Letters, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "LEAST", least)
    with disk_lab.disk(here / "repository", 30 << 20, lab.ACCOUNT.pw_uid) as disk, lab.running(cluster, here) as server:
        server.configure(ONCE)
        shop = Shop(server, repository=str(disk))
        assert shop.call("run", "full") == 0
        before = shop.backups()
        for name in ("one", "two"):
            grow(shop, name)
        wait_until(lambda: server.waiting() == 0)
        filled = disk / "filled"
        filled.write_bytes(bytes(shutil.disk_usage(disk).free - (3 << 20)))
        assert shop.call("run", "full") == 1
        words = letters[-1][2]
        assert "Nothing that was stored is lost" in words and "df -h" in words
        assert ("a disk of this host is full" if least == 0 else f"the disk of {disk} has 0 MB left") in words
        # The log is stored on, since there is nothing of the half that was made.
        assert sorted(path.name for path in disk.glob("backup/main/2*")) == before == shop.backups()
        shop.order(3)
        server.sql("SELECT pg_switch_wal()")
        wait_until(lambda: server.waiting() == 0)
        filled.unlink()
        assert shop.call("run", "full") == 0
        assert shop.restored(capsys) == 3


@FULL
def test_a_disk_that_fills_up_under_a_restore_or_a_drill_is_told_and_given_back_and_the_server_serves_on(
    least: int, here: Path, cluster: Path, letters: Letters, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "LEAST", least)
    with disk_lab.disk(here / "clusters", 60 << 20, lab.ACCOUNT.pw_uid) as disk, lab.running(cluster, here) as server:
        server.configure(ONCE)
        shop = Shop(server)
        grow(shop, "one")
        shop.order(5)
        assert shop.call("run", "full") == 0
        # There is room in the beginning, and not any more in the middle.
        monkeypatch.setattr(restore, "require_space", lambda *_: None)
        filled = disk / "filled"
        filled.write_bytes(bytes(shutil.disk_usage(disk).free - (8 << 20)))
        words = "a disk of this host is full" if least == 0 else f"the disk of {disk}/{server.version} has"
        for command in ("restore", "drill"):
            assert shop.call(command) == 1
            said = capsys.readouterr().err
            assert words in said and "df -h" in said
            assert sorted(path.name for path in server.data.parent.iterdir()) == ["main"]
            shop.order()
        filled.unlink()
        assert letters[-1][1] == "The restore drill of PostgreSQL on db-1 failed"
        assert shop.restored(capsys) == 7


def test_what_a_full_disk_does_not_let_be_written_is_told_and_leaves_no_half_of_a_restore(
    local_shop: Shop, capsys: Capture
) -> None:
    assert local_shop.call("run", "full") == 0
    for name in ("restoring-restored.new", "promoting.json.new"):
        (local_shop.state / name).symlink_to("/dev/full")
    assert local_shop.call("restore") == 1
    assert "this host does not let it work, see df -h: [Errno 28] No space left" in capsys.readouterr().err
    assert [path.name for path in local_shop.server.data.parent.iterdir()] == ["main"]
    (local_shop.state / "restoring-restored.new").unlink()
    assert local_shop.call("restore") == 0
    assert local_shop.call("promote") == 1
    assert "No space left" in capsys.readouterr().err
    local_shop.order()  # it is not stopped
    assert local_shop.call("drop") == 0


def test_on_a_disk_that_is_nearly_full_the_live_server_is_not_stopped_for_another(
    local_shop: Shop, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_shop.call("run", "full") == 0
    assert local_shop.call("restore") == 0
    usage = shutil.disk_usage(local_shop.server.root)._replace(free=200 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        assert local_shop.call("promote") == 1
    assert "has 200 MB left, and 256 MB are left to others" in capsys.readouterr().err
    local_shop.order()
    assert not (local_shop.state / "promoting.json").exists()
    assert local_shop.call("drop") == 0


def test_that_the_log_waits_for_room_to_write_pgbackrests_own_is_told_by_the_place(
    local_shop: Shop, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_shop.call("run", "full") == 0
    log = local_shop.server.root / "log-of-its-own"
    with disk_lab.disk(log, 1 << 20, lab.ACCOUNT.pw_uid):
        monkeypatch.setattr(watch, "LOG", log / watch.LOG.name)
        local_shop.server.configure((r"log-path=.*", f"log-path={log}"))
        disk_lab.fill(log / "filled")
        local_shop.order()
        assert local_shop.call("restore") == 1
        assert f"The disk of {log} is full, and what cannot write its own log stores" in capsys.readouterr().err
        (log / "filled").unlink()
        assert local_shop.restored(capsys) == 1


# The second has twice as many weeks by the same rule.
@pytest.mark.parametrize(("name", "days"), [("Portun", 7), pytest.param("Smart Lodge", 30, marks=LONGER)])
def test_over_simulated_weeks_each_moment_of_the_plans_days_stays_within_reach_and_no_backup_more(
    name: str, days: int, local_shop: Shop, tmp_path: Path, capsys: Capture
) -> None:
    """A full backup a week and one of the differential ones between them, by the settings of the system's inventory."""
    declared = Declared(name, tmp_path)
    assert cron(declared, "full")[-1] == "0" and cron(declared, "diff")[-1] == "1-6"
    server = local_shop.server
    server.configure(pgbackrest_recovery_days=declared["pgbackrest_recovery_days"])
    moments: list[tuple[int, str, int]] = []
    first = -(days // 7 * 7 + 14)
    for day in sorted({*range(first, 1, 7), *range(first + 3, 1, 7)}):
        server.set_clock(day)
        server.pgbackrest(f"--type={'diff' if (day - first) % 7 else 'full'}", "backup")
        time.sleep(A_SECOND)
        moments.append((day, local_shop.order(), local_shop.orders()))
        (stanza,) = json.loads(server.pgbackrest("--output=json", "info"))
        at = time.time() + day * 86400
        ages = [(at - one["timestamp"]["stop"]) / 86400 for one in stanza["backup"] if one["type"] == "full"]
        assert day - first < days or ages[0] >= days, "a moment that was promised is gone"
        assert [age for age in ages if age >= days][:-1] == [], "older ones than are needed"
    # The log of before the oldest one is gone, too.
    (archive,) = stanza["archive"]
    assert archive["min"] == stanza["backup"][0]["archive"]["start"]
    server.sql("SELECT pg_switch_wal()")
    reachable = [(moment, orders) for day, moment, orders in moments if day >= -days]
    assert local_shop.restored(capsys, reachable[0][0]) == reachable[0][1]
    gone = [moment for day, moment, _ in moments if day < -max(ages) - 1]
    assert local_shop.call("restore", "--to", gone[-1]) == 1
    assert "is before the end of the first backup; possible is every moment from" in capsys.readouterr().err


def cron(declared: Declared, kind: str) -> list[str]:
    """The five fields of when that is made."""
    found = re.search(rf"^(\S+ \S+ \S+ \S+ \S+) root .*shipshape-pgbackrest run {kind} ", declared.render(
        "pgbackrest/templates/cron.j2"), re.MULTILINE)  # fmt: skip
    assert found
    return found[1].split()


def test_each_system_that_goes_back_to_any_moment_has_one_of_the_simulated_policies(tmp_path: Path) -> None:
    policies = {}
    for number, name in enumerate(SYSTEMS):
        (folder := tmp_path / str(number)).mkdir()
        declared = Declared(name, folder)
        if declared["shipshape_has"]["pgbackrest"]:
            policies[name] = (declared["pgbackrest_recovery_days"], cron(declared, "full"), cron(declared, "diff"))
    # The plans of the other two have nightly dumps alone.
    assert set(policies) == {"Smart Lodge", "Portun", "Malar Market"}
    assert policies["Malar Market"] == policies["Portun"]


def nothing_before(held: threading.Event) -> None:
    """No fault, but a store that takes its time."""
    held.wait(20)


def wait_until(true: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
