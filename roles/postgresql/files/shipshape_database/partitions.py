"""Monthly partitions: those of the coming months are made before a row needs them, old ones go after their time."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from shipshape_database.server import Failure, psql, rows

Month = Tuple[int, int]
#: A lock that is not to be had within this would make the whole app wait behind us; the next run tries again.
LOCK = "SET lock_timeout = '5s';"
PARENT = """
SELECT format('%I', n.nspname) AS schema, c.relname AS name, c.relkind AS kind, pg_get_userbyid(c.relowner) AS owner,
  pg_get_partkeydef(c.oid) AS key FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(:'table')
"""
PARTS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname AS plain, pg_get_expr(c.relpartbound, c.oid) AS bounds
FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE inhparent = to_regclass(:'table')
"""
_BOUNDS = re.compile(r"FOR VALUES FROM \('?(MINVALUE|\d{4}-\d\d-\d\d)[^)]*\) TO \('?(MAXVALUE|\d{4}-\d\d-\d\d)")


@dataclass(frozen=True)
class Part:
    """A partition from a day on, up to another."""

    name: str
    plain: str
    begin: str
    end: str


def month_after(month: Month, months: int) -> Month:
    number = month[0] * 12 + month[1] - 1 + months
    return number // 12, number % 12 + 1


def first_day(month: Month) -> str:
    return f"{month[0]:04d}-{month[1]:02d}-01"


def parts_of(found: Sequence[Dict[str, Any]]) -> List[Part]:
    """Those with bounds; the default partition has none."""
    parts = []
    for row in found:
        match = _BOUNDS.match(str(row["bounds"]))
        if match:
            begin = "0000-00-00" if match[1] == "MINVALUE" else match[1]
            parts.append(Part(row["name"], row["plain"], begin, "9999-99-99" if match[2] == "MAXVALUE" else match[2]))
    return parts


def missing(parts: Sequence[Part], now: Month, ahead: int) -> List[Month]:
    """The months, this one first, whose first day is in no partition."""
    months = [month_after(now, number) for number in range(ahead + 1)]
    return [month for month in months if not any(part.begin <= first_day(month) < part.end for part in parts)]


def expired(parts: Sequence[Part], table: str, now: Month, keep: Optional[int]) -> List[Part]:
    """Those that end before what is kept begins. Only what has a name as we give it: others are somebody's."""
    if keep is None:
        return []
    oldest = first_day(month_after(now, -keep))
    ours = re.compile(re.escape(table[:54]) + r"_\d{4}_\d\d")
    return [part for part in parts if ours.fullmatch(part.plain) and part.end <= oldest]


def look_after(wanted: Dict[str, Any], now: Month) -> Iterator[str]:
    """One table."""
    database, label = wanted["database"], f"{wanted['table']} of {wanted['database']}"
    # As the app's own session finds it: in the schema of its role's name, then in public.
    path = 'SET search_path = :"role", public;'
    found = json.loads(
        psql(f"{path} SELECT coalesce(json_agg(one), '[]') FROM ({PARENT}) AS one;", database, table=wanted["table"],
             role=wanted["role"])
    )  # fmt: skip
    if not found:
        yield f"{label} is not there yet"
        return
    parent = found[0]
    if parent["kind"] != "p" or not parent["key"].startswith("RANGE"):
        created = f"the app's migration has to create it with PARTITION BY RANGE ({wanted['by']})"
        raise Failure(f"it is not partitioned by range: {created}")
    if parent["key"].replace('"', "") != f"RANGE ({wanted['by']})":
        raise Failure(f"it is partitioned by {parent['key']}, and `by` in the inventory is {wanted['by']}")
    table = f'{parent["schema"]}."{parent["name"]}"'
    parts = parts_of(rows(PARTS, database, table=table))
    for month in missing(parts, now, int(wanted["ahead"])):
        name = f"{parent['name'][:54]}_{month[0]:04d}_{month[1]:02d}"
        # By the owner, so that it is the owner's, and what others may read of it is as with any table of theirs.
        psql(
            f'{LOCK} SET ROLE :"owner"; CREATE TABLE {parent["schema"]}.:"name" PARTITION OF {table} '
            "FOR VALUES FROM (:'begin') TO (:'end');",
            database, owner=parent["owner"], name=name, begin=first_day(month), end=first_day(month_after(month, 1)),
        )  # fmt: skip
        yield f"{label}: made {name}"
    for part in expired(parts, parent["name"], now, wanted.get("keep_months")):
        psql(f"{LOCK} DROP TABLE {part.name};", database)
        yield f"{label}: dropped {part.plain}, which ended on {part.end}"


def partitions(configuration: Path) -> Tuple[List[str], List[str]]:
    """(what was done, what went wrong): one table that fails keeps no other from its partitions."""
    today = datetime.datetime.now(datetime.timezone.utc)
    said: List[str] = []
    wrong: List[str] = []
    for wanted in json.loads(configuration.read_text(encoding="utf-8")):
        try:
            said += look_after(wanted, (today.year, today.month))
        except Failure as error:
            wrong.append(f"{wanted['table']} of {wanted['database']}: {error}")
    return said, wrong
