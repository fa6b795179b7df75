"""What can be asked of the databases, and done to them. Each job gives the lines that it has to say."""

from __future__ import annotations

import difflib
import re
import time
from typing import Iterator, List, Sequence

from shipshape_database import questions, text
from shipshape_database.server import Failure, databases, psql, rows


def sizes(database: str, limit: int) -> Iterator[str]:
    """The databases by their size, and the largest tables of each."""
    for name in databases(database):
        total = rows("SELECT pg_database_size(:'name') AS size", name=name)[0]["size"]
        found = rows(questions.SIZES, name, limit=str(limit))
        yield f"{name}: {text.size(total)}"
        lines = [
            [row["name"], text.size(row["total"]), text.size(row["own"]), text.size(row["indexes"]),
             text.count(row["rows"]), text.count(row["dead"]), text.day(row["vacuumed"]), text.day(row["analyzed"])]
            for row in found
        ]  # fmt: skip
        heads = ["table", "total", "table", "indexes", "rows", "dead rows", "vacuumed", "analyzed"]
        yield from text.table(heads, lines) if lines else ["no tables"]
        yield ""


def slow(database: str, limit: int) -> Iterator[str]:
    """The queries that took most of the server's time since its statistics were last reset."""
    if database:
        databases(database)
    psql("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS pg_stat_statements;")
    lines = [
        [row["database"], text.count(row["calls"]), f"{row['mean']:,.1f}", f"{row['most']:,.0f}",
         f"{row['total'] / 1000:,.1f}", f"{row['share'] or 0:.0f} %", " ".join(row["query"].split())[:120]]
        for row in rows(questions.SLOW, only=database, limit=str(limit))
    ]  # fmt: skip
    heads = ["database", "calls", "mean ms", "longest ms", "total s", "share", "query"]
    yield from text.table(heads, lines, last_is_text=True) if lines else ["no queries yet"]


def bloat(database: str, limit: int) -> Iterator[str]:
    """What tables and indexes could give back, estimated from the planner's statistics."""
    for name in databases(database):
        yield f"{name}: an estimate; VACUUM lets new rows use it, REINDEX gives that of indexes back"
        lines = [
            [f"{row['name']} ({row['kind']})", text.size(row["size"]), text.size(row["waste"]),
             f"{100 * row['waste'] / row['size']:.0f} %", text.count(row["dead"])]
            for row in rows(questions.BLOAT, name, limit=str(limit))
        ]  # fmt: skip
        heads = ["what", "size", "waste", "part", "dead rows"]
        yield from text.table(heads, lines) if lines else ["no tables of more than some pages"]
        yield ""


def vacuum(database: str, tables: Sequence[str]) -> Iterator[str]:
    """VACUUM (ANALYZE) of a database, or of some of its tables."""
    for name in databases(database):
        chosen = [known(table, name) for table in tables]
        before = {row["name"]: row for row in rows(questions.DEAD, name)}
        began = time.monotonic()
        psql("VACUUM (ANALYZE)" + (" " + ", ".join(chosen) if chosen else "") + ";", name)
        seconds = time.monotonic() - began
        psql("SELECT pg_stat_clear_snapshot();", name)
        after = {row["name"]: row for row in rows(questions.DEAD, name)}
        yield f"{name}: vacuumed and analyzed {', '.join(chosen) or 'all tables'} in {seconds:.1f} s"
        lines = [
            [one, text.count(before[one]["dead"]), text.count(row["dead"]), text.size(row["total"])]
            for one, row in after.items()
            if one in before and (before[one]["dead"] or row["dead"]) and (not chosen or one in chosen)
        ]
        yield from text.table(["table", "dead rows before", "after", "size"], lines) if lines else []


def reindex(database: str, tables: Sequence[str]) -> Iterator[str]:
    """REINDEX CONCURRENTLY of named tables: they can be read and written meanwhile."""
    if not database or not tables:
        raise Failure("say which tables of which database: reindex --database NAME TABLE…")
    (name,) = databases(database)
    chosen = [known(table, name) for table in tables]
    for table in chosen:
        # Of a run that was cut off; nobody uses them.
        for row in rows(questions.INDEXES, name, table=table):
            if not row["valid"] and re.search(r'_cc(new|old)\d*"?$', row["name"]):
                psql(f"DROP INDEX CONCURRENTLY {row['name']};", name)
                yield f"{table}: {row['name']} dropped, which a run that was cut off had left"
        before = {row["name"]: row["size"] for row in rows(questions.INDEXES, name, table=table)}
        began = time.monotonic()
        psql(f"REINDEX TABLE CONCURRENTLY {table};", name)
        yield f"{table}: {len(before)} indexes rebuilt in {time.monotonic() - began:.1f} s"
        lines = [
            [row["name"], text.size(before.get(row["name"], 0)), text.size(row["size"])]
            for row in rows(questions.INDEXES, name, table=table)
        ]
        yield from text.table(["index", "before", "after"], lines)


def known(table: str, database: str) -> str:
    """A table as SQL has it; one that is not there is named, with those that may be meant."""
    if not re.fullmatch(r'[\w$."]+', table):
        raise Failure(f"{table} is no name of a table")
    found = rows(questions.TABLE, database, table=table)
    if found:
        return str(found[0]["name"])
    names: List[str] = [row["name"] for row in rows(questions.TABLES, database)]
    plain = {name.rpartition(".")[2] for name in names}
    alike = difflib.get_close_matches(table.rpartition(".")[2], plain, n=3)
    close = [name for name in names if name.rpartition(".")[2] in alike]
    raise Failure(
        f"database {database} has no table {table}" + (f"; did you mean {' or '.join(close)}?" if close else "")
    )
