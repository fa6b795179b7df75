"""The program that looks after the databases: months, bounds and tables for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "postgresql" / "files"))
from shipshape_database import partitions, text

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
