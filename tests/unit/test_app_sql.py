"""Which SQL migrations are applied, which taken back, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "app" / "files"))
import shipshape_sql as sql


def folder(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / f"{name}.sql").write_text(f"CREATE TABLE t{name} ();\n", encoding="utf-8")
        (path / f"{name}.down.sql").write_text(f"DROP TABLE t{name};\n", encoding="utf-8")
    return path


def row(name: str, text: str = "") -> dict[str, str]:
    text = text or f"CREATE TABLE t{name} ();\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"name": f"{name}.sql", "sha256": sha256, "down": "x", "applied_at": "2026-01-01"}


class Fake(sql.Database):
    """Remembers what it was told, and fails where it is asked to."""

    def __init__(self, rows: list[dict[str, str]], fails: str = "") -> None:
        self.rows, self.fails, self.told = rows, fails, list[tuple[str, bool]]()

    def run(self, text: str, alone: bool = False) -> str:
        if self.fails and self.fails in text:
            raise sql.Refused('ERROR:  syntax error at or near "TABEL"')
        self.told.append((text, alone))
        return ""

    def applied(self) -> list[dict[str, str]]:
        return self.rows


def test_what_was_not_applied_is_applied_in_the_order_of_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Fake([row("001")])
    sql.up(database, folder(tmp_path, "003", "001", "002"), "r1")
    assert capsys.readouterr().out.split("\n")[:2] == ["applied 002.sql", "applied 003.sql"]
    assert [alone for _, alone in database.told] == [False, False]
    assert "CREATE TABLE t002" in database.told[0][0] and "INSERT INTO shipshape_migrations" in database.told[0][0]


def test_after_one_that_fails_nothing_is_tried(tmp_path: Path) -> None:
    database = Fake([], fails="t002")
    with pytest.raises(sql.Refused, match=r"(?s)002.sql failed and was taken back; nothing after it was tried:\nERROR"):
        sql.up(database, folder(tmp_path, "001", "002", "003"), "r1")
    assert len(database.told) == 1


def test_one_that_cannot_be_in_a_transaction_is_run_by_itself(tmp_path: Path) -> None:
    folder(tmp_path, "001")
    (tmp_path / "001.sql").write_text("-- no transaction\nCREATE INDEX CONCURRENTLY i ON t (a);\n", encoding="utf-8")
    database = Fake([])
    sql.up(database, tmp_path, "r1")
    assert [alone for _, alone in database.told] == [True, False]


def test_an_applied_one_that_was_edited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sql.Refused, match=r"001.sql is not what was applied on 2026-01-01: .*write a new migration"):
        sql.pending(folder(tmp_path, "001"), [row("001", "something else")])


def test_one_without_a_way_back_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path, "001") / "001.down.sql").unlink()
    with pytest.raises(sql.Refused, match=r"001.sql has no way back: write 001.down.sql beside it"):
        sql.pending(tmp_path, [])


def test_a_way_back_may_also_be_named_a_rollback(tmp_path: Path) -> None:
    (folder(tmp_path, "001") / "001.down.sql").rename(tmp_path / "001_rollback.sql")
    assert [(found.name, found.down) for found in sql.pending(tmp_path, [])] == [("001.sql", "DROP TABLE t001;\n")]


@pytest.mark.parametrize("name", ["a b.sql", "ä.sql", "-x.sql"])
def test_a_strange_name_is_refused(tmp_path: Path, name: str) -> None:
    (folder(tmp_path) / name).touch()
    with pytest.raises(sql.Refused, match="name it with letters"):
        sql.names_in(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(sql.Refused, match=r"there is no folder .*/none in this release"):
        sql.names_in(tmp_path / "none")


def test_the_way_back_goes_last_first_and_stops_at_what_the_older_code_knows(tmp_path: Path) -> None:
    database = Fake([row("001"), row("002"), row("003")])
    sql.down(database, folder(tmp_path, "001"))
    assert ["'003.sql'" in database.told[0][0], "'002.sql'" in database.told[1][0], len(database.told)] == [
        True,
        True,
        2,
    ]


def test_the_password_is_told_to_psql_where_nobody_else_reads_it() -> None:
    found = sql.connection("postgresql://desk:p%40ss@db.test:6432/desk")
    wanted: dict[str, Any] = {"PGHOST": "db.test", "PGPORT": "6432", "PGUSER": "desk", "PGPASSWORD": "p@ss"}
    assert found == {**wanted, "PGDATABASE": "desk"}


def test_a_database_is_also_reached_by_the_socket_that_a_url_names() -> None:
    found = sql.connection("postgresql://desk:p@/desk?host=/var/run/postgresql&sslmode=disable")
    assert (found["PGHOST"], found["PGSSLMODE"], found["PGDATABASE"]) == ("/var/run/postgresql", "disable", "desk")


@pytest.mark.parametrize("url", ["", "mysql://a/b", "postgresql://a:b@c"])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(sql.Refused, match="give the app a `database`"):
        sql.connection(url)


def test_a_quote_in_a_way_back_stays_one() -> None:
    assert sql.quoted("it's") == "'it''s'"
