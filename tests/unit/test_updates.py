"""What a webhook hears of unattended upgrades: failures, a due reboot once, and nothing twice or in vain."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "hardening" / "files"))

import shipshape_updates.__main__ as program
from shipshape_updates.webhook import NotTold, tell

URL = "https://hooks.example.test/T0/s3cret"


def line(text: str, ago: float = 60) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S,123 ", time.localtime(time.time() - ago)) + text + "\n"


@pytest.fixture
def host(tmp_path: Path) -> program.Host:
    """A host whose last upgrade went well."""
    found = program.Host(str(tmp_path))
    for path in (found.log, found.stamp, found.reboot, found.state, found.configuration):
        path.parent.mkdir(parents=True, exist_ok=True)
    found.configuration.write_text(f'{{"host": "shop-1", "webhook": "{URL}", "reboot_at": ""}}')
    found.log.write_text(line("INFO Starting unattended upgrades script"))
    found.stamp.touch()
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []

    def hear(url: str, text: str) -> None:
        assert url == URL
        heard.append(text)

    monkeypatch.setattr(program, "tell", hear)
    return heard


def more(host: program.Host, *lines: str) -> None:
    with host.log.open("a") as stream:
        stream.writelines(lines)


def test_a_run_that_went_well_is_not_worth_a_word(host: program.Host, told: list[str]) -> None:
    assert program.main(host, "success") == 0 and told == []


def test_an_error_in_the_log_is_told_once_and_that_of_the_next_day_again(host: program.Host, told: list[str]) -> None:
    program.main(host, "success")
    more(host, line("ERROR Installing the upgrades failed!"), line("WARNING not this"), "a line of a traceback ERROR\n")
    program.main(host, "success")
    program.main(host, "success")
    assert told == ["Updates of shop-1 failed:\n• Installing the upgrades failed!"]
    more(host, line("ERROR Installing the upgrades failed!"))
    program.main(host, "success")
    assert len(told) == 2


def test_errors_of_old_are_history_on_the_first_look_and_rotation_hides_nothing(
    host: program.Host, told: list[str]
) -> None:
    more(host, line("ERROR of last month", ago=30 * program.DAY))
    program.main(host, "success")
    assert told == []
    host.log.rename(host.log.with_suffix(".log.1"))
    host.log.write_text(line("ERROR after the rotation"))
    program.main(host, "success")
    assert told == ["Updates of shop-1 failed:\n• after the rotation"]


@pytest.mark.parametrize("stamp", ["old", "missing"])
def test_a_run_that_left_no_trace_of_its_end_has_failed(stamp: str, host: program.Host, told: list[str]) -> None:
    if stamp == "old":
        os.utime(host.stamp, (0, time.time() - 2 * program.DAY))
    else:
        host.stamp.unlink()
    program.main(host, "success")
    assert "did not come to its end" in told[0]


def test_a_service_that_was_killed_has_failed(host: program.Host, told: list[str]) -> None:
    program.main(host, "timeout")
    assert "apt-daily-upgrade.service ended with timeout" in told[0]


def test_a_due_reboot_is_told_once_and_says_who_makes_it(host: program.Host, told: list[str]) -> None:
    host.reboot.touch()
    host.reboot.with_name("reboot-required.pkgs").write_text("linux-base\nlibc6\nlinux-base\n")
    program.main(host, "success")
    program.main(host, "success")
    (text,) = told
    assert "a reboot is due for libc6, linux-base: run playbooks/maintenance/upgrade.yml" in text
    host.configuration.write_text(f'{{"host": "shop-1", "webhook": "{URL}", "reboot_at": "04:00"}}')
    program.main(host, "success")
    assert "it does so by itself at 04:00" in told[-1]
    host.reboot.unlink()
    program.main(host, "success")
    host.reboot.touch()
    program.main(host, "success")
    assert len(told) == 3


def test_what_was_not_heard_is_said_again(
    host: program.Host, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deaf(url: str, text: str) -> None:
        raise NotTold("Connection refused")

    program.main(host, "success")
    more(host, line("ERROR Installing the upgrades failed!"))
    with monkeypatch.context() as patch:
        patch.setattr(program, "tell", deaf)
        assert program.main(host, "success") == 1
    assert "the webhook was not told: Connection refused" in capsys.readouterr().err
    program.main(host, "success")
    assert len(told) == 1


def test_a_flood_of_errors_is_cut_short(host: program.Host, told: list[str]) -> None:
    more(host, *(line(f"ERROR {number}") for number in range(30)))
    program.main(host, "success")
    assert told[0].endswith("… and 20 more")


def test_the_address_of_a_webhook_is_in_no_message() -> None:
    for url in ("http://127.0.0.1:9/T0/s3cret", "nonsense-s3cret"):
        with pytest.raises(NotTold) as raised:
            tell(url, "x")
        assert "s3cret" not in str(raised.value)
