"""The program that looks after the databases: months, bounds and tables for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "postgresql" / "files"))
from shipshape_database import mail, partitions, replicas, text, webhook

NOW = (2026, 11)


def part(plain: str, begin: str, end: str) -> dict[str, Any]:
    bounds = f"FOR VALUES FROM ({begin}) TO ({end})"
    return {"name": f"public.{plain}", "plain": plain, "bounds": bounds}


def month(year: int, number: int) -> dict[str, Any]:
    begin, end = (year, number), partitions.month_after((year, number), 1)
    midnight = " 00:00:00+00"
    return part(
        f"logs_{year}_{number:02d}",
        f"'{partitions.first_day(begin)}{midnight}'",
        f"'{partitions.first_day(end)}{midnight}'",
    )


def test_months_go_over_the_year() -> None:
    assert partitions.month_after((2026, 11), 2) == (2027, 1)
    assert partitions.month_after((2027, 1), -13) == (2025, 12)
    assert partitions.month_after((2026, 12), 0) == (2026, 12)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ([], [(2026, 11), (2026, 12), (2027, 1)]),
        ([month(2026, 11)], [(2026, 12), (2027, 1)]),
        ([month(2026, number) for number in (11, 12)] + [month(2027, 1)], []),
        ([part("logs_2026", "'2026-01-01'", "'2027-01-01'")], [(2027, 1)]),
        ([part("logs_all", "MINVALUE", "MAXVALUE")], []),
        ([{"name": "public.rest", "plain": "rest", "bounds": "DEFAULT"}], [(2026, 11), (2026, 12), (2027, 1)]),
    ],
)
def test_the_months_that_no_partition_has_are_missing(found: Any, missing: Any) -> None:
    assert partitions.missing(partitions.parts_of(found), NOW, 2) == missing


def test_what_is_older_than_what_is_kept_goes_if_its_name_is_ours() -> None:
    found = [month(2025, 10), month(2025, 11), month(2026, 11), part("logs_before", "MINVALUE", "'2020-01-01'")]
    parts = partitions.parts_of(found)
    # Twelve full months beside this one: November of last year is the first of them.
    assert [old.plain for old in partitions.expired(parts, "logs", NOW, 12)] == ["logs_2025_10"]
    assert partitions.expired(parts, "logs", NOW, None) == []
    assert partitions.expired(parts, "log", NOW, 1) == []


def test_a_table_is_aligned_and_its_numbers_can_be_read() -> None:
    lines = text.table(["table", "size"], [["a", text.size(512)], ["long.name", text.size(3_500_000)]])
    assert lines == ["table        size", "a           512 B", "long.name  3.3 MB"]
    assert [text.size(number) for number in (0, 2048, 250 * 1024**2, 5 * 1024**4)] == [
        "0 B",
        "2 kB",
        "250 MB",
        "5.0 TB",
    ]
    assert text.count(1234567) == "1,234,567"
    assert text.day(None) == "never" and text.day("2026-11-26T05:42:11+00:00") == "2026-11-26 05:42"


HOSTS = {"two": "shipshape_two", "three": "shipshape_three"}


def sender(host: str, state: str = "streaming", behind: int = 0) -> dict[str, Any]:
    return {"name": f"shipshape_{host}", "state": state, "bytes_behind": behind, "seconds_behind": 0.1}


def looks(*looks: list[dict[str, Any]], every: int = 300) -> tuple[dict[str, Any], list[list[str]], list[bool]]:
    """Look at the replicas so often, one after the other: what a monitor reads in the end, what was told at each."""
    state: dict[str, Any] = {}
    told, wrong = [], []
    for number, found in enumerate(looks):
        state, news, bad = replicas.judge(HOSTS, found, state, 1_800_000_000.0 + number * every)
        told.append(news)
        wrong.append(bad)
    return state, told, wrong


WELL = [sender("two"), sender("three", behind=512)]


def test_a_monitor_reads_how_far_each_replica_is_behind() -> None:
    state, told, wrong = looks(WELL)
    assert state["at"] == "2027-01-15T08:00:00+00:00" and told == [[]] and wrong == [False]
    assert state["replicas"]["three"] == {"streams": True, "bytes_behind": 512, "seconds_behind": 0.1, "since": None}


def test_a_replica_that_is_away_for_more_than_ten_minutes_is_told_once_and_so_is_its_return() -> None:
    away = [sender("three")]
    _, told, wrong = looks(WELL, away, away, away, away, away, WELL, WELL)
    assert told[:4] == [[], [], [], []] and told[5:6] == [[]] and told[7] == []
    assert told[4] == ["the replica on two does not follow, since 2027-01-15T08:05:00+00:00"]
    assert told[6] == ["the replica on two follows again", "the replica on three follows again"]
    assert wrong == [False] * 4 + [True] * 2 + [False] * 2
    _, told, _ = looks(*[away] * 100)
    assert len([news for news in told if news]) == 2  # and after six hours again


def test_a_replica_that_is_far_behind_is_told_and_one_that_is_being_made_is_not() -> None:
    far = [sender("two", behind=replicas.FAR_BEHIND + 1), sender("three")]
    _, told, _ = looks(*[far] * 4)
    assert told[3] == [
        "the replica on two is 16777217 bytes of the write-ahead log behind, since 2027-01-15T08:00:00+00:00"
    ]
    _, told, wrong = looks(*[[sender("clone", replicas.CLONING), sender("three")]] * 9)
    assert not any(told) and not any(wrong)


def test_whom_the_configuration_names_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(webhook, "tell", lambda url, words: heard.append((url, words)))
    monkeypatch.setattr(mail, "send", lambda address, subject, words: heard.append((address, words)))
    monkeypatch.setattr(replicas, "rows", lambda _question: [sender("three")])
    configuration, state = tmp_path / "replicas.json", tmp_path / "state.json"
    wanted = {"host": "one", "replicas": HOSTS, "webhook": "https://hooks.test/T0", "mail": "ops@shop.test"}
    configuration.write_text(json.dumps(wanted))
    assert replicas.replicas(configuration, state) == (["two: does not follow", "three: streams, 0 bytes behind"], [])
    assert not heard
    old = json.loads(state.read_text())
    old["replicas"]["two"]["since"] = "2026-01-01T00:00:00+00:00"
    state.write_text(json.dumps(old))
    said, wrong = replicas.replicas(configuration, state)
    assert not said and wrong[0] == "two: does not follow"
    assert [where for where, _ in heard] == ["https://hooks.test/T0", "ops@shop.test"]
    assert heard[0][1].startswith("PostgreSQL on one:\n• the replica on two does not follow, since 2026-01-01")
    assert state.stat().st_mode & 0o777 == 0o644
