"""The backup program: what counts as a success, what it says of each fault, what it leaves for monitors."""

from __future__ import annotations

import contextlib
import email
import fcntl
import http.server
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "roles" / "backup" / "files"))

import shipshape_backup.__main__ as program
import shipshape_backup.drill as drill
import shipshape_backup.mail as mail
import shipshape_backup.postgres as postgres
import shipshape_backup.restore as restore
import shipshape_backup.store as store
import shipshape_backup.unattended as unattended

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """A configuration whose restic, pg_dump and psql are the fakes."""
    monkeypatch.setenv("PATH", f"{Path(__file__).parent / 'backup_fakes'}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # do not become postgres here
    for name in ("store", "state", "cache", "etc"):
        (tmp_path / name).mkdir()

    def write(webhook: str = "", faults: dict[str, str] | None = None, **values: Any) -> Path:
        configuration: dict[str, Any] = {
            "repository": str(tmp_path / "store"), "host": "shop-1", "databases": ["shop"], "paths": [],
            "exclude": [], "keep": {"daily": 7, "weekly": 0, "monthly": 12}, "timeout_minutes": 1, "jitter_minutes": 0,
            "mail": "", "server_copy": "", "places": [],
            "state_directory": str(tmp_path / "state"), "cache_directory": str(tmp_path / "cache"),
            "lock_file": str(tmp_path / "lock"),
        }  # fmt: skip
        (tmp_path / "etc" / "config.json").write_text(json.dumps({**configuration, **values}))
        (tmp_path / "etc" / "credentials.env").write_text(
            "# a comment\nAWS_SECRET_ACCESS_KEY='it'\"'\"'s s3cret'\nRESTIC_PASSWORD=pa55word\n"
            f"SHIPSHAPE_WEBHOOK={webhook}\n"
        )
        (tmp_path / "store" / "faults.json").write_text(json.dumps(faults or {}))
        return tmp_path / "etc"

    return write


def run(etc: Path, *arguments: str) -> int:
    code: int = program.main(["--configuration", str(etc), *(arguments or ("run",))])
    return code


def report(etc: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((etc.parent / "state" / "last.json").read_text())
    return found


def snapshots(etc: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (etc.parent / "store").glob("*.snapshot")]


def calls(etc: Path) -> list[str]:
    return (etc.parent / "store" / "calls").read_text().splitlines()


def test_a_run_that_was_read_back_is_a_success_a_monitor_can_see(configure: Configure) -> None:
    etc = configure()
    assert run(etc) == 0
    found = report(etc)
    assert (found["status"], found["failures"]) == ("ok", [])
    assert (etc.parent / "state" / "last-success").read_text().strip() == found["finished"]
    (snapshot,) = snapshots(etc)
    assert snapshot["tags"] == ["shipshape", "database:shop"]
    assert found["databases"][0]["snapshot"] == snapshot["id"][:8]


def test_a_drill_loads_the_newest_dump_into_a_server_of_its_own_and_reports(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure()
    state = etc.parent / "state"
    assert run(etc) == 0
    (state / "drill-server").mkdir()  # of one that was killed
    assert run(etc, "drill") == 0
    (path,) = (state / "drills").glob("*.json")
    found = json.loads(path.read_text())
    (database,) = found["databases"]
    assert (found["status"], database["name"], database["bytes"] > 0) == ("ok", "shop", True)
    assert (database["tables"], database["rows"], database["indexes"], database["differ"]) == (1, 3, 1, [])
    assert 0 <= database["rpo_seconds"] < 60 and 0 <= database["rto_seconds"] < 60
    assert "1 tables with 3 rows" in capsys.readouterr().out
    assert (state / "last-drill-success").exists() and not (state / "drill-server").exists()
    started = (state / "server").read_text()
    assert "CPUWeight=10" in started and "RuntimeMaxSec=60" in started and "listen_addresses= " in started


def test_a_drill_says_which_tables_have_other_rows_by_now() -> None:
    same = {"rows": 3, "newest": []}
    then: drill.Tables = {"same": same, "orders": {"rows": 3, "newest": ["2026-01-31", None]}, "gone": same}
    now: drill.Tables = {"same": same, "orders": {"rows": 5, "newest": ["2026-02-01", None]}, "new": same}
    assert drill.differences(then, now) == [
        "gone: 3 rows in the backup, no table by now",
        "new: no table in the backup, 3 rows by now",
        "orders: 3 rows in the backup with times up to 2026-01-31, 5 rows by now",
    ]


def test_a_drill_that_cannot_read_a_dump_fails_by_its_name(configure: Configure, capsys: Any) -> None:
    etc = configure()
    assert run(etc) == 0
    configure(faults={"corrupt": "yes"})
    assert run(etc, "drill") == 1
    assert "is no backup: pg_restore of database shop failed: pg_restore: error" in capsys.readouterr().err
    assert not (etc.parent / "state" / "last-drill-success").exists()


def test_a_restore_that_is_not_whole_fails_although_restic_0_11_says_it_went_well(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(faults={"partly": ""})
    (etc.parent / "store" / "tree" / "srv").mkdir(parents=True)
    (etc.parent / "store" / "tree" / "srv" / "other").write_text("whole")
    taken = {"id": "d" * 64, "time": "2026-01-01T00:00:00Z", "tags": ["shipshape", "files"]}
    (etc.parent / "store" / "d.snapshot").write_text(json.dumps(taken))
    assert run(etc, "restore-files") == 1
    assert "an object of the repository is damaged" in capsys.readouterr().err


def test_old_backups_go_by_the_declared_numbers_after_a_whole_run_only(configure: Configure) -> None:
    etc = configure()
    assert run(etc) == 0
    wanted = "forget --json --tag shipshape --group-by tags --keep-daily 7 --keep-monthly 12 --prune"
    assert calls(etc)[-1] == wanted
    run(configure(databases=["shop", "gone"]))
    assert calls(etc).count(wanted) == 1


def test_what_reads_back_otherwise_than_it_was_written_is_no_backup(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(faults={"corrupt": ""})
    assert run(etc) == 1
    assert "not what was written" in capsys.readouterr().err
    assert all("unverified" in snapshot["tags"] for snapshot in snapshots(etc))
    assert not (etc.parent / "state" / "last-success").exists()


def test_a_dump_that_breaks_off_never_becomes_a_snapshot(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(databases=["torn", "shop"])
    assert run(etc) == 1
    assert "pg_dump of database torn failed: pg_dump: error: server closed" in capsys.readouterr().err
    assert [snapshot["tags"] for snapshot in snapshots(etc)] == [["shipshape", "database:shop"]]


def test_every_failure_is_named_and_the_rest_is_stored(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(databases=["gone", "shop"], paths=["/nowhere/at/all"])
    assert run(etc) == 1
    assert report(etc)["failures"] == [
        "database gone is to be backed up and does not exist on this host",
        "path /nowhere/at/all is to be backed up and does not exist on this host",
    ]
    assert [database["name"] for database in report(etc)["databases"]] == ["shop"]


def test_what_a_run_has_read_back_before_it_was_stopped_is_a_backup(configure: Configure) -> None:
    etc = configure(databases=["shop", "stopped"])
    assert run(etc) == 1
    assert report(etc)["failures"] == ["the backup was told to stop before it was done"]
    assert ["shipshape", "database:shop"] in [snapshot["tags"] for snapshot in snapshots(etc)]
    (entry,) = report(etc)["databases"]
    assert entry["snapshot"] in [snapshot["id"][:8] for snapshot in snapshots(etc) if "original" in snapshot]


def test_what_cannot_be_marked_as_a_backup_is_none(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    etc = configure(faults={"tag": "Fatal: Access Denied"})
    assert run(etc) == 1
    assert "could not be marked as a backup: the store refuses the keys" in capsys.readouterr().err
    assert report(etc)["databases"] == [] and not any(call.startswith("forget") for call in calls(etc))
    # Restic 0.11 says of what it does not find that it ignores it, and that all went well.
    etc = configure(faults={"deaf": ""})
    assert run(etc) == 1
    assert "was stored and read back, and is not listed as a backup" in capsys.readouterr().err


def test_nothing_declared_is_a_failure(configure: Configure) -> None:
    etc = configure(databases=[])
    assert run(etc) == 1
    assert "there is nothing to back up" in report(etc)["failures"][0]


def test_a_repository_that_does_not_open_is_never_made_anew(configure: Configure) -> None:
    etc = configure(faults={"open": "Fatal: wrong password or no key found"})
    assert run(etc) == 1
    assert not any(call.startswith("init") for call in calls(etc))


def test_keys_that_are_refused_are_told_at_once_although_restic_goes_on_trying(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert run(configure(faults={"stall": "Stat: The Access Key Id you provided does not exist in our records."})) == 1
    assert time.monotonic() - began < 30
    assert "the store refuses the keys" in capsys.readouterr().err


def test_a_store_that_never_answers_is_given_up(
    configure: Configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OPEN_TIMEOUT", 1)
    monkeypatch.setattr(store, "LIST_TIMEOUT", 1)
    assert run(configure(faults={"stall": "Stat: something passing"})) == 1
    assert "the store cannot be reached" in capsys.readouterr().err


def test_a_store_that_answers_may_take_its_time_over_the_list(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LIST_TIMEOUT", 0.5)
    assert run(configure()) == 0
    etc = configure(faults={"slow": "1"})
    assert run(etc) == 0
    # Once by the first run, which did not know the repository yet, and once to see whether the store answers.
    assert calls(etc).count("cat config") == 2


def test_a_repository_is_asked_for_its_id_when_it_is_not_the_one_of_the_last_run(configure: Configure) -> None:
    etc = configure()
    assert (run(etc), run(etc)) == (0, 0)
    assert calls(etc).count("cat config") == 1
    for snapshot in (etc.parent / "store").glob("*.snapshot"):
        snapshot.unlink()
    assert run(etc) == 0
    assert calls(etc).count("cat config") == 2 and report(etc)["repository_id"] == "feedface" * 8


def test_a_bucket_that_is_not_there_yet_is_made(configure: Configure) -> None:
    etc = configure(faults={"stall": "Stat: The specified bucket does not exist"})
    assert run(etc, "open") == 1  # the fake has no init that mends it
    assert "init" in calls(etc)


def test_a_second_run_is_refused_and_leaves_the_report_alone(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure()
    with open(etc.parent / "lock", "w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        holder.write("backup, process 42, since noon")
        holder.flush()
        assert run(etc) == 75
    assert "another backup is running: process 42, since noon" in capsys.readouterr().err
    assert not (etc.parent / "state" / "last.json").exists()


@contextlib.contextmanager
def held(etc: Path, holder: str) -> Iterator[threading.Timer]:
    """The lock by another, until this is over or the timer that is given has run out."""
    with open(etc.parent / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(holder)
        handle.flush()
        timer = threading.Timer(1.5, lambda: fcntl.flock(handle, fcntl.LOCK_UN))
        yield timer
        timer.cancel()


@pytest.mark.parametrize(("command", "holder"), [("run", "drill"), ("drill", "backup")])
def test_by_the_schedule_a_backup_waits_for_a_drill_and_a_drill_for_a_backup(
    command: str, holder: str, configure: Configure, mailbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(mail="ops@shop.test")
    assert run(etc) == 0
    with held(etc, f"{holder}, process 42, since noon") as timer:
        timer.start()
        assert run(etc, command, "--scheduled") == 0
        assert not timer.is_alive()
    assert f"waiting until it is done: {holder}, process 42, since noon" in capsys.readouterr().err
    assert not mailbox.exists()


def test_a_backup_that_has_waited_in_vain_is_told(
    configure: Configure, receiver: Any, mailbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, received = receiver
    etc = configure(webhook=url, mail="ops@shop.test", timeout_minutes=0.02)
    with held(etc, "drill, process 42, since noon"):
        assert run(etc, "run", "--scheduled") == 75
    assert received[0]["text"].startswith(
        "Backup of shop-1 was left out:\n• a drill is running: process 42, since noon"
    )
    assert "Subject: Backup of shop-1 was left out" in mailbox.read_text()
    assert "shipshape-backup: a drill is running: process 42" in capsys.readouterr().err
    assert not (etc.parent / "state" / "last.json").exists()


def test_a_backup_by_hand_does_not_wait_and_hears_how_to_have_its_turn(
    configure: Configure, mailbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(mail="ops@shop.test")
    with held(etc, "drill, process 42, since noon"):
        assert run(etc) == 75
    said = capsys.readouterr().err
    assert "a drill is running: process 42, since noon. This backup did nothing" in said and "kill 42" in said
    assert not mailbox.exists()


def test_what_cron_begins_waits_for_a_moment_of_its_jitter_and_what_an_operator_begins_does_not(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, slept = configure(jitter_minutes=5), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)
    assert run(etc, "run", "--scheduled") == 0
    first = slept[0]
    assert max(slept[1:], default=0) < 1 < first <= 300
    assert run(etc, "run", "--scheduled") == 0
    assert first not in slept[1:]
    slept.clear()
    assert run(etc) == 0
    assert max(slept, default=0) < 1


def test_leftovers_of_a_killed_run_are_removed_by_the_next(configure: Configure) -> None:
    etc = configure()
    leftover = {"id": "c" * 64, "time": "2026-01-01T00:00:00Z", "tags": ["shipshape", "database:shop", "unverified"]}
    (etc.parent / "store" / "c.snapshot").write_text(json.dumps(leftover))
    assert run(etc) == 0
    assert f"forget {'c' * 64}" in calls(etc)


def test_open_asks_the_store_again_only_when_the_configuration_is_another(configure: Configure) -> None:
    etc = configure()
    assert run(etc, "open", "--if-changed") == 0
    assert run(etc, "open", "--if-changed") == 0
    assert calls(etc) == ["cat config"]
    text = (etc / "credentials.env").read_text()
    (etc / "credentials.env").write_text(text.replace("pa55word", "another"))
    assert run(etc, "open", "--if-changed") == 0
    assert calls(etc) == ["cat config"] * 2
    assert (etc / "opened").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    received: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


def test_a_failure_reaches_the_webhook_without_a_secret(
    configure: Configure, receiver: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url, received = receiver
    etc = configure(webhook=url, faults={"open": f"Fatal: pa55word it's s3cret {url} Access Denied"})
    assert run(etc) == 1
    (message,) = received
    assert message["text"].startswith("Backup of shop-1 failed:\n• the store refuses the keys")
    everything = message["text"] + json.dumps(report(etc)) + capsys.readouterr().err
    assert not any(secret in everything for secret in ("pa55word", "it's s3cret", url))


def test_a_success_does_not_call_the_webhook(configure: Configure, receiver: Any) -> None:
    url, received = receiver
    assert run(configure(webhook=url)) == 0
    assert received == []


def test_a_webhook_that_does_not_answer_is_said_without_its_address(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(configure(webhook="http://127.0.0.1:9/T0/secret", databases=[])) == 1
    said = capsys.readouterr().err
    assert "the webhook was not told" in said
    assert "T0/secret" not in said


@pytest.fixture
def mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the mails are that this host's mail program has taken."""
    box = tmp_path / "mailbox"
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\ntest "$*" = "-i -t" && exec cat >> {box}\n')
    program.chmod(0o755)
    monkeypatch.setattr(mail, "SENDMAIL", str(program))
    return box


def test_a_failure_reaches_the_mailbox_although_the_webhook_does_not_answer(
    configure: Configure, mailbox: Path
) -> None:
    etc = configure(
        webhook="http://127.0.0.1:9/x", mail="ops@shop.test", faults={"open": "Fatal: pa55word no such host"}
    )
    assert run(etc) == 1
    letter = email.message_from_string(mailbox.read_text())
    assert (letter["To"], letter["Subject"]) == ("ops@shop.test", "Backup of shop-1 failed")
    said = letter.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "the store cannot be reached" in said and "pa55word" not in said


def test_a_failed_drill_reaches_webhook_and_mailbox_and_a_good_one_does_not(
    configure: Configure, receiver: Any, mailbox: Path
) -> None:
    url, received = receiver
    etc = configure(webhook=url, mail="ops@shop.test")
    assert (run(etc), run(etc, "drill")) == (0, 0)
    assert received == [] and not mailbox.exists()
    configure(webhook=url, mail="ops@shop.test", faults={"corrupt": "yes"})
    assert run(etc, "drill") == 1
    assert "The restore drill of shop-1 failed" in received[0]["text"]
    assert "Subject: The restore drill of shop-1 failed" in mailbox.read_text()


def test_a_host_that_cannot_send_mail_says_so(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = configure(mail="ops@shop.test", databases=[])
    monkeypatch.setattr(mail, "SENDMAIL", str(tmp_path / "nothing"))
    assert run(etc) == 1
    assert "ops@shop.test was not told: there is no mail program on this host. Install one" in capsys.readouterr().err
    (tmp_path / "nothing").write_text("#!/bin/sh\necho 'no route to the relay' >&2; exit 75\n")
    (tmp_path / "nothing").chmod(0o755)
    assert run(etc) == 1
    assert "ops@shop.test was not told: no route to the relay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Fatal: wrong password or no key found", "backup_password does not open it"),
        ("Fatal: x: Stat: The Access Key Id you provided does not exist in our records.", "refuses the keys"),
        ("Fatal: unable to open config file: Stat: Access Denied.", "refuses the keys"),
        ("Fatal: x: The request signature we calculated does not match the signature", "refuses the keys"),
        ("Fatal: x: dial tcp 127.0.0.1:9: connect: connection refused", "cannot be reached"),
        ("Fatal: x: dial tcp: lookup nosuch.invalid on 10.0.0.1:53: no such host", "cannot be reached"),
        ("Fatal: x: x509: certificate has expired or is not yet valid: current time 2026-11-26T02:00:00Z is "
         "after 2026-11-25T00:00:00Z", "the store's certificate has expired"),
        ("Fatal: x: x509: certificate has expired or is not yet valid: current time 2020-01-01T02:00:00Z is before "
         "2026-11-25T00:00:00Z", "this host's clock is behind"),
        ("Fatal: x: x509: certificate signed by unknown authority", "certificate is not trusted"),
        ("error: open /certificate: permission denied\nFatal: x: Access Denied.", "refuses the keys"),
        ("Fatal: x: Stat: 400 Bad Request", "another region"),
        ("Fatal: x: Stat: The access key ID you provided does not exist in our records.", "refuses the keys"),
        ("Save(<lock/f9>) returned error, retrying after 1.3s: client.PutObject: Error response code QuotaExceeded.",
         "the bucket is full"),
        ("ignoring error for /srv/a: ciphertext verification failed\nFatal: There were 2 errors", "for /srv/a: cipher"),
        ("Fatal: unable to create lock in backend: repository is already locked by PID 1", "another process holds"),
        ("Fatal: x: the region 'a' is wrong; expecting 'b'", "another region"),
        ("save x: no space left on device", "a disk of this host is full"),
        ("Fatal: something new", "Fatal: something new"),
        ("", "restic ended with 1"),
    ],
)  # fmt: skip
def test_what_restic_says_is_put_into_words(output: str, words: str) -> None:
    assert words in store.meaning(output, 1)


@pytest.mark.parametrize(("code", "words"), [(12, "backup_password does not open it"), (11, "another process holds")])
def test_a_newer_restics_exit_status_says_it_too(code: int, words: str) -> None:
    assert words in store.meaning("", code)


TAKEN = [
    {"id": f"{number}abc{'0' * 60}", "time": f"2026-01-0{number}T02:00:00.123456789+01:00"} for number in (1, 2, 3)
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("latest", 3), ("1abc", 1), ("2026-01-02", 1), ("2026-01-02T01:00:01", 2), ("2026-01-02 01:00:00", 1),
     ("2026-01-02T01:00:00.123456Z", 2), ("2026-06-01", 3)],
)  # fmt: skip
def test_a_snapshot_is_chosen_by_id_or_as_the_last_before_a_time(wanted: str, number: int) -> None:
    assert restore.choose(TAKEN, wanted, "database shop") is TAKEN[number - 1]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("2025-12-31", "is as old as 2025-12-31"), ("2026-13-01", "is no time"),
     ("2099-01-01", "is in the future; the newest backup of database shop is of 2026-01-03T02"),
     ("dead", "there is no snapshot 'dead'"), ("1", "no snapshot '1'")],
)  # fmt: skip
def test_a_snapshot_that_is_not_there_is_said(wanted: str, words: str) -> None:
    with pytest.raises(unattended.Failure, match=words):
        restore.choose(TAKEN, wanted, "database shop")


def test_a_database_name_is_no_option_no_connection_string_and_no_tag_list() -> None:
    assert postgres.conninfo("host=evil 'x\\") == "dbname='host=evil \\'x\\\\'"
    assert postgres.tag_of("a,b c") == "database:a%2Cb%20c"
    assert postgres.file_of("../x") == "..%2Fx.dump"
