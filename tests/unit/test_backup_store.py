"""The backup program with a real restic and a real S3 store: what it says of the store's faults, and what comes after.

After each of them what was stored is still there and can be restored, and the next run succeeds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit import disk_lab, restic_lab, s3_lab

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "roles" / "backup" / "files"))

import shipshape_backup.__main__ as program
import shipshape_backup.mail as mail
import shipshape_backup.make as make
import shipshape_backup.restore as restore
import shipshape_backup.store as store
import shipshape_backup.unattended as unattended

Capture = pytest.CaptureFixture[str]


class Shop:
    """A host with a folder of photos and one database, whose backups are in a bucket, or else in a directory."""

    bucket: s3_lab.Store

    def __init__(self, root: Path, repository: restic_lab.Repository, bucket: s3_lab.Store | None = None) -> None:
        self.root, self.repository = root, repository
        if bucket:
            self.bucket = bucket
        self.photos = root / "photos"
        self.photos.mkdir()
        (self.photos / "one.jpg").write_bytes(os.urandom(300_000))
        (root / "etc").mkdir()
        (root / "state").mkdir()
        self.configure(f"s3:{bucket.url}/repository" if bucket else str(repository.directory))
        self.trust(bucket.certificate if bucket else Path("/dev/null"))

    def configure(self, repository: str, timeout_minutes: float = 2, cache: Path | None = None) -> None:
        configuration = {
            "repository": repository, "host": "shop-1", "databases": ["shop"],
            "paths": [str(self.photos)], "exclude": [], "keep": {"daily": 1}, "jitter_minutes": 0,
            "timeout_minutes": timeout_minutes,
            "mail": "ops@shop.test", "state_directory": str(self.root / "state"),
            "cache_directory": str(cache or self.root / "cache"), "lock_file": str(self.root / "lock"),
            "server_copy": "", "places": [],
        }  # fmt: skip
        (self.root / "etc" / "config.json").write_text(json.dumps(configuration))

    def trust(self, certificate: Path) -> None:
        nothing = self.root / "no-certificates"
        nothing.mkdir(exist_ok=True)
        (self.root / "etc" / "credentials.env").write_text(
            f"AWS_ACCESS_KEY_ID={s3_lab.KEYS['access_key']}\nAWS_SECRET_ACCESS_KEY={s3_lab.KEYS['secret_key']}\n"
            f'RESTIC_PASSWORD="{restic_lab.PASSWORD}"\nSSL_CERT_FILE={certificate}\nSSL_CERT_DIR={nothing}\n'
        )

    def call(self, *arguments: str) -> int:
        code: int = program.main(["--configuration", str(self.root / "etc"), *arguments])
        return code

    def listed(self, capsys: Capture) -> list[str]:
        capsys.readouterr()
        assert self.call("list", "--json") == 0
        return [row["snapshot"] for row in json.loads(capsys.readouterr().out)]

    def starts(self) -> list[str]:
        """The commands with which restic was started since the last time this was asked."""
        found = (self.root / "starts").read_text().split()
        (self.root / "starts").unlink()
        return found

    def before(self, command: str, script: str) -> None:
        """From now on that happens whenever restic is started with that command."""
        program = self.root / "bin" / "restic"
        begin, rest = program.read_text().split("\n", 1)
        program.write_text(f'{begin}\nif [ "$1" = {command} ]; then {script}; fi\n{rest}')

    def fill_before(self, command: str, file: Path) -> None:
        """The next time that restic is started with that command, this fills its disk."""
        once = self.root / f"once-{file.parent.name}"
        once.touch()
        self.before(command, f"if rm {once} 2>/dev/null; then cat /dev/zero >{file} 2>/dev/null; fi")

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "state" / "last.json").read_text())
        return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> restic_lab.Repository:
    root = tmp_path_factory.mktemp("template")
    (root / "file").write_text("what is backed up")
    return restic_lab.Repository(root, root / "file")


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What was sent by mail."""
    sent: list[tuple[str, str, str]] = []
    monkeypatch.setattr(mail, "send", lambda *letter: sent.append(letter))
    return sent


@pytest.fixture
def here(tmp_path: Path, letters: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a host that has the programs that the backup calls."""
    programs = tmp_path / "bin"
    shutil.copytree(Path(__file__).parent / "backup_fakes", programs)
    (programs / "restic").write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/starts\nexec {restic_lab.program()} "$@"\n')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # do not become postgres here
    return tmp_path


@pytest.fixture
def shop(here: Path, template: restic_lab.Repository) -> Iterator[Shop]:
    (here / "buckets").mkdir()
    repository = template.copy(here / "buckets")
    # A bucket has no empty folders, and rclone would look into each at every listing.
    for folder in (repository.directory / "data").iterdir():
        with contextlib.suppress(OSError):
            folder.rmdir()
    with s3_lab.store(here / "buckets", here) as bucket:
        yield Shop(here, repository, bucket)


@pytest.fixture
def local_shop(here: Path, template: restic_lab.Repository) -> Shop:
    return Shop(here, template.copy(here))


def test_a_bucket_without_room_for_the_data_is_told_as_made_and_not_uploaded(
    shop: Shop, letters: list[tuple[str, str, str]], capsys: Capture
) -> None:
    assert shop.call("run") == 0
    before = shop.listed(capsys)
    (shop.photos / "two.jpg").write_bytes(os.urandom(300_000))
    began = time.monotonic()
    shop.bucket.fault = lambda method, path: (
        (403, "QuotaExceeded", "") if method == "PUT" and "/data/" in path else None
    )
    assert shop.call("run") == 1
    assert time.monotonic() - began < 60  # and not as long as restic would try
    said = capsys.readouterr().err
    assert "the paths were read and not stored: the bucket is full: its quota is used up. Nothing that" in said
    ((address, subject, text),) = letters
    assert (address, subject) == ("ops@shop.test", "Backup of shop-1 was made and not uploaded")
    assert "Raise the quota at the provider" in text and shop.report()["status"] == "failed"
    assert set(before) <= set(shop.listed(capsys))
    shop.bucket.fault = lambda method, path: None
    assert shop.call("run") == 0


def test_from_a_bucket_that_takes_nothing_any_more_everything_can_be_restored(
    shop: Shop, letters: list[tuple[str, str, str]], capsys: Capture
) -> None:
    assert shop.call("run") == 0
    before = shop.listed(capsys)
    shop.bucket.fault = lambda method, path: (403, "QuotaExceeded", "") if method == "PUT" else None
    assert shop.call("run") == 1
    assert "the bucket is full" in capsys.readouterr().err
    assert [subject for _, subject, _ in letters] == ["Backup of shop-1 failed"]
    assert shop.listed(capsys) == before
    assert shop.call("restore-files", "--target", str(shop.root / "back")) == 0
    restored = shop.root / "back" / str(shop.photos).lstrip("/") / "one.jpg"
    assert restored.read_bytes() == (shop.photos / "one.jpg").read_bytes()


def test_each_fault_of_the_store_is_told_in_its_own_words_and_the_next_run_succeeds(
    shop: Shop, capsys: Capture
) -> None:
    for answer, words in (
        ((403, "RequestTimeTooSkewed", ""), "this host's clock is wrong, so the store refuses what it signs"),
        ((400, "AuthorizationHeaderMalformed", "the region 'fra1' is wrong"), "the bucket is in another region"),
        ((403, "SignatureDoesNotMatch", ""), "the store refuses the keys"),
    ):
        shop.bucket.fault = lambda method, path, answer=answer: answer  # type: ignore[misc]
        assert shop.call("run") == 1
        assert words in capsys.readouterr().err
    shop.bucket.fault = lambda method, path: None
    good = shop.bucket.certificate
    for begins, ends, words in (
        (-9, -1, "the store's certificate has expired. Whoever runs the store has to renew it"),
        (1, 9, "the store's certificate is not valid yet, so this host's clock is behind"),
    ):
        shown = s3_lab.certificate(shop.root, timedelta(begins), timedelta(ends))
        shop.bucket.show(shown)
        shop.trust(shown)
        assert shop.call("run") == 1
        assert words in capsys.readouterr().err
    shop.bucket.show(good)
    shop.trust(good)
    assert shop.call("run") == 0


def test_a_run_while_the_network_is_away_fails_soon_in_clear_words_and_the_next_one_succeeds(
    shop: Shop, letters: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert shop.call("run") == 0
    before = shop.listed(capsys)
    for name in ("LIST_TIMEOUT", "OPEN_TIMEOUT"):
        monkeypatch.setattr(store, name, 2)
    shop.bucket.silent.set()
    began = time.monotonic()
    assert shop.call("run") == 1
    assert time.monotonic() - began < 40  # restic itself would wait for many minutes
    assert (
        letters[-1][1] == "Backup of shop-1 failed" and "the store cannot be reached. Check endpoint" in letters[-1][2]
    )
    shop.bucket.silent.clear()
    assert shop.call("run") == 0
    # One of each, as `keep` says.
    assert len(shop.listed(capsys)) == len(before)


def test_a_run_whose_network_goes_away_in_its_middle_is_ended_in_minutes_and_nothing_of_it_counts(
    shop: Shop, letters: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert shop.call("run") == 0
    before = shop.listed(capsys)
    (shop.photos / "two.jpg").write_bytes(os.urandom(300_000))

    def vanish(method: str, path: str) -> None:
        if method == "PUT" and "/data/" in path:
            shop.bucket.silent.set()

    shop.bucket.fault = vanish
    for name, seconds in (("ASK_EVERY", 0.2), ("ASK_TIMEOUT", 0.5), ("AWAY_AFTER", 1.5)):
        monkeypatch.setattr(store, name, seconds)
    began = time.monotonic()
    assert shop.call("run") == 1
    assert shop.bucket.silent.is_set() and time.monotonic() - began < 20
    assert "the store cannot be reached. Check endpoint of backup_s3" in letters[-1][2]
    assert "it answered in the beginning, and has not for" in letters[-1][2]
    shop.bucket.silent.clear()
    shop.bucket.fault = lambda method, path: None
    assert shop.listed(capsys) == before
    assert shop.call("run") == 0


def test_a_run_of_which_the_store_answers_all_but_one_request_is_stopped_after_its_time(
    shop: Shop, letters: list[tuple[str, str, str]], capsys: Capture
) -> None:
    assert shop.call("run") == 0
    before = shop.listed(capsys)
    (shop.photos / "two.jpg").write_bytes(os.urandom(300_000))
    held = threading.Event()
    shop.bucket.fault = lambda method, path: nothing_before(held) if method == "PUT" and "/data/" in path else None
    shop.configure(f"s3:{shop.bucket.url}/repository", timeout_minutes=0.08)
    assert shop.call("run") == 1
    assert "the backup was not done after 0.08 minutes and was stopped (backup_timeout_minutes)" in letters[-1][2]
    held.set()
    shop.bucket.fault = lambda method, path: None
    assert shop.listed(capsys) == before
    shop.configure(f"s3:{shop.bucket.url}/repository")
    assert shop.call("run") == 0


def test_a_damaged_object_is_found_by_the_drill_and_another_repository_goes_on(
    local_shop: Shop, template: restic_lab.Repository, capsys: Capture
) -> None:
    assert local_shop.call("run") == 0
    packs = [path for path in (local_shop.repository.directory / "data").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    whole = bytearray(largest.read_bytes())
    whole[1000] ^= 255
    largest.chmod(0o600)
    largest.write_bytes(whole)
    capsys.readouterr()
    assert local_shop.call("drill") == 1
    said = capsys.readouterr().err
    assert "an object of the repository is damaged" in said and f"{local_shop.photos}/one.jpg" in said
    assert "Begin a new repository beside this one by another backup_prefix" in said
    assert not (local_shop.root / "state" / "drill").exists()
    (local_shop.root / "anew").mkdir()
    local_shop.configure(str(template.copy(local_shop.root / "anew").directory))
    assert local_shop.call("run") == 0
    assert local_shop.call("drill") == 0


def test_with_a_clock_that_was_set_back_no_old_backup_is_removed(
    local_shop: Shop, letters: list[tuple[str, str, str]], capsys: Capture
) -> None:
    now = datetime.now(UTC)
    for days in (-2, -1, 0, 400):
        local_shop.repository.add(now + timedelta(days) - timedelta(hours=1), store.MARK, store.FILES)
    before = local_shop.listed(capsys)
    assert local_shop.call("run") == 1
    said = capsys.readouterr().err
    assert f"backup {before[-1]} is of {now + timedelta(400) - timedelta(hours=1):%Y-%m-%d}" in said
    assert "No old backups are removed" in said and "timedatectl" in said and len(letters) == 1
    # Of the paths and of the database one more.
    assert set(before) < set(local_shop.listed(capsys)) and len(local_shop.listed(capsys)) == len(before) + 2
    assert local_shop.call("remove", "latest") == 1
    assert "'latest' is no id of a backup" in capsys.readouterr().err
    assert local_shop.call("remove", before[-1]) == 0
    assert local_shop.call("run") == 0
    # One of each, as `keep` says.
    assert len(local_shop.listed(capsys)) == 2


def test_what_does_not_fit_is_not_restored_and_says_what_it_takes(
    local_shop: Shop, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (local_shop.photos / "film.mp4").write_bytes(bytes(3 << 20))
    assert local_shop.call("run") == 0
    usage = shutil.disk_usage(local_shop.root)._replace(free=2 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(unattended, "LEAST", 1 << 20)
    target = str(local_shop.root / "back")
    assert local_shop.call("restore-files", "--target", target) == 1
    assert f"{target} has 2 MB left, and what is restored takes 3 MB. Make room" in capsys.readouterr().err
    assert not Path(target).exists()
    assert local_shop.call("drill") == 1
    assert "has 2 MB left, and what is rehearsed takes 3 MB" in capsys.readouterr().err
    assert local_shop.call("restore-files", "--target", target, "--path", f"{local_shop.photos}/one.jpg") == 0
    assert local_shop.call("run") == 0  # which writes nothing here


def test_a_report_that_a_full_disk_does_not_take_is_told_and_the_backup_is_there(
    local_shop: Shop, letters: list[tuple[str, str, str]], capsys: Capture
) -> None:
    (local_shop.root / "state" / "last.json.new").symlink_to("/dev/full")
    assert local_shop.call("run") == 1
    assert "the report of the backup cannot be written to" in letters[0][2] and "No space left" in letters[0][2]
    assert len(local_shop.listed(capsys)) == 2
    assert not (local_shop.root / "state" / "last-success").exists()
    (local_shop.root / "state" / "last.json.new").unlink()
    (local_shop.root / "state" / "manifest.json.new").symlink_to("/dev/full")
    assert local_shop.call("run") == 1
    assert "this host does not let it work, see df -h: [Errno 28] No space left" in letters[1][2]
    assert "No space left" in local_shop.report()["failures"][0]
    (local_shop.root / "state" / "manifest.json.new").unlink()
    assert local_shop.call("run") == 0


def test_a_run_opens_the_repository_no_more_often_than_it_has_things_to_do(local_shop: Shop) -> None:
    assert local_shop.call("run") == 0
    local_shop.starts()
    assert local_shop.call("run") == 0
    # To open it is most of what a run of what has not changed takes. (`version` does not.)
    database, files = ["backup", "dump"], ["backup", "restore"]
    assert local_shop.starts() == ["snapshots", "version", *database, *files, "tag", "forget"]


def test_files_are_read_back_whatever_they_are_called_and_those_that_were_added_before_others(
    local_shop: Shop,
) -> None:
    for number in range(30):
        (local_shop.photos / f"{number}.jpg").write_bytes(os.urandom(100))
    assert local_shop.call("run") == 0
    for name in ("one*", "two?", "three[x]", "four\\4", "five\n5"):
        (local_shop.photos / name).write_text(name)
    local_shop.before("restore", f'printf "%s|" "$@" >{local_shop.root}/restored')
    assert local_shop.call("run") == 0
    files = local_shop.report()["files"]
    assert (files["files"], files["added"], files["compared"]) == (36, 5, 5)
    assert (local_shop.root / "restored").read_text().count("--include|") == 5
    assert not (local_shop.root / "state" / "read-back").exists()


@pytest.mark.parametrize(("small", "command"), [(16 << 20, "restore"), (0, "dump")])
def test_a_file_that_reads_back_otherwise_fails_the_run_unless_it_has_changed_since(
    small: int, command: str, local_shop: Shop, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "SMALL", small)
    photo, copy = local_shop.photos / "one.jpg", local_shop.root / "copy"
    shutil.copy2(photo, copy)
    local_shop.before(command, f"printf x >>{photo}; test ! -e {copy} || touch -r {copy} {photo}")
    assert local_shop.call("run") == 1
    assert f"{photo} was stored, and what the repository gives back is not what is here" in capsys.readouterr().err
    copy.unlink()
    assert local_shop.call("run") == 0
    assert local_shop.report()["files"]["compared"] == 1


def test_what_only_the_cache_of_this_host_has_is_no_backup(local_shop: Shop, capsys: Capture) -> None:
    assert local_shop.call("run") == 0
    cached = [path.name for path in (local_shop.root / "cache").glob("*/data/*/*")]
    assert cached
    for name in cached:
        pack = local_shop.repository.directory / "data" / name[:2] / name
        pack.chmod(0o600)
        pack.write_bytes(bytes(1000) + pack.read_bytes()[1000:])
    capsys.readouterr()
    assert local_shop.call("run") == 1
    assert "cannot be read back" in capsys.readouterr().err
    assert not local_shop.report()["files"]


def test_a_lock_of_a_dead_process_is_taken_away_and_that_of_a_living_one_heeded(
    local_shop: Shop, capsys: Capture
) -> None:
    assert local_shop.call("run") == 0
    locks = local_shop.repository.directory / "locks"
    environment = local_shop.repository.environment
    command = [restic_lab.program(), "backup", "--stdin", "--tag", store.MARK]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(200):
            if list(locks.iterdir()):
                break
            time.sleep(0.05)
        capsys.readouterr()
        assert local_shop.call("run") == 1
        assert "could not be marked as a backup: another process holds the repository" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.communicate()
    assert len(list(locks.iterdir())) == 1
    assert local_shop.call("run") == 0
    assert not list(locks.iterdir())


def test_a_disk_that_fills_up_under_a_backup_is_told_in_words_and_the_next_run_with_room_succeeds(
    local_shop: Shop, letters: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The repository's own, and the ones of temporary files, restic's and the program's, and of the cache."""
    with contextlib.ExitStack() as disks:
        repository, temporary, cache = [
            disks.enter_context(disk_lab.disk(local_shop.root / name, size << 20))
            for name, size in (("disk", 8), ("tmp", 2), ("small-cache", 2))
        ]
        shutil.copytree(local_shop.repository.directory, repository / "repository")
        local_shop.configure(str(repository / "repository"), cache=cache)
        local_shop.before("backup", f"export TMPDIR={temporary}")
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        assert local_shop.call("run") == 0
        for number, full in enumerate((repository, temporary, cache)):
            before = local_shop.listed(capsys)
            (local_shop.photos / f"{number}.jpg").write_bytes(os.urandom(1_000_000))
            local_shop.fill_before("backup", full / "filled")
            began = time.monotonic()
            assert local_shop.call("run") == 1
            assert time.monotonic() - began < 15  # of which restic itself would try again for many minutes
            for words in ("ake room", "df -h", "Nothing that was stored is lost"):
                assert words in letters[-1][2]
            # What is in the repository can be seen, and fetched, also from a disk that is full.
            if full != cache:
                assert local_shop.listed(capsys) == before
                assert local_shop.call("restore-files", "--target", str(local_shop.root / f"back-{number}")) == 0
            (full / "filled").unlink()
            assert local_shop.call("run") == 0
            assert len(local_shop.listed(capsys)) == len(before)


def test_a_disk_that_fills_up_under_a_restore_keeps_nothing_of_it_and_the_next_one_with_room_succeeds(
    local_shop: Shop, capsys: Capture
) -> None:
    (local_shop.photos / "film.mp4").write_bytes(os.urandom(2 << 20))
    assert local_shop.call("run") == 0
    with disk_lab.disk(local_shop.root / "disk", 4 << 20) as disk:
        target = disk / "back"
        local_shop.fill_before("restore", disk / "filled")
        assert local_shop.call("restore-files", "--target", str(target)) == 1
        said = capsys.readouterr().err
        assert "ake room" in said and "df -h" in said
        assert list(target.iterdir()) == []
        (disk / "filled").unlink()
        assert local_shop.call("restore-files", "--target", str(target)) == 0
        restored = target / str(local_shop.photos).lstrip("/") / "film.mp4"
        assert restored.read_bytes() == (local_shop.photos / "film.mp4").read_bytes()
        assert not (target / restore.UNFINISHED).exists()


def test_what_a_killed_restore_has_left_goes_with_the_next_and_what_others_put_there_stays(
    local_shop: Shop, capsys: Capture
) -> None:
    assert local_shop.call("run") == 0
    target = local_shop.root / "back"
    target.mkdir()
    (target / "somebodys").write_text("own")
    assert local_shop.call("restore-files", "--target", str(target)) == 1
    assert "is not empty and nothing is overwritten" in capsys.readouterr().err
    assert (target / "somebodys").read_text() == "own"
    (target / restore.UNFINISHED).touch()
    assert local_shop.call("restore-files", "--target", str(target)) == 0
    assert [path.name for path in target.iterdir()] == [local_shop.photos.parts[1]]


def test_a_backup_leaves_of_a_disk_of_this_host_what_postgresql_needs_to_go_on(
    local_shop: Shop, letters: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_shop.call("run") == 0
    usage = shutil.disk_usage(local_shop.root)._replace(free=200 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        local_shop.before("backup", "sleep 1")
        assert local_shop.call("run") == 1
        assert f"the disk of {local_shop.repository.directory} has 200 MB left, and 256 MB are left" in letters[-1][2]
    assert local_shop.call("run") == 0


#: Says what a restore asks the server, and writes down what it is told.
PSQL = """#!/bin/sh
statement=$(cat)
echo "$statement" >>{root}/statements
case "$statement" in
  *data_directory*) echo {root} ;;
  *pg_get_userbyid*) printf 'shop\\tC' ;;
  *server_version_num*) echo 150000 ;;
  'SELECT 1 FROM pg_database'*) ;;
  *) echo 1 ;;
esac
"""


def test_a_restore_of_a_database_under_which_the_servers_disk_fills_up_is_ended_before_the_server_stops(
    local_shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert local_shop.call("run") == 0
    (local_shop.root / "bin" / "psql").write_text(PSQL.format(root=local_shop.root))
    begun = local_shop.root / "begun"
    (local_shop.root / "bin" / "pg_restore").write_text(f"#!/bin/sh\ntouch {begun}\nexec sleep 30\n")
    usage = shutil.disk_usage(local_shop.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200 << 20) if begun.exists() else usage)
    began = time.monotonic()
    assert local_shop.call("restore-database", "shop") == 1
    assert time.monotonic() - began < 15
    said = capsys.readouterr().err
    assert "nothing is left of shop_restored: pg_restore of database shop failed: the disk of " in said
    assert f"{local_shop.root} has 200 MB left" in said
    assert (local_shop.root / "statements").read_text().splitlines()[-1] == 'DROP DATABASE :"into"'
    (local_shop.root / "bin" / "pg_restore").write_text("#!/bin/sh\nexec cat >/dev/null\n")
    begun.unlink()
    assert local_shop.call("restore-database", "shop") == 0


def nothing_before(held: threading.Event) -> None:
    """No fault, but a store that takes its time over this request."""
    held.wait(20)
