"""What is sent to the server of a file of SQL or of a dump."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_dump as dump

HEAD = "--\n-- PostgreSQL database dump\n--\n\n"
TAIL = "--\n-- PostgreSQL database dump complete\n--\n"


def sent(text: str, *schemas: str) -> list[str]:
    lines = [line.decode() for line in dump.statements(text.encode().splitlines(keepends=True), frozenset(schemas))]
    assert len(lines) == len(text.splitlines())
    return [line.rstrip("\n") for line in lines if line.strip()]


def test_a_schema_goes_as_it_is() -> None:
    text = "CREATE TABLE a (n int); -- it's\n/* it's\n */\nINSERT INTO a VALUES (1);\nGRANT ALL ON a TO b;\n"
    assert sent(text) == text.splitlines()


def test_its_own_transaction_is_ours() -> None:
    assert sent("BEGIN;\nCREATE TABLE a ();\ncommit work; -- done\n") == ["CREATE TABLE a ();"]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$\nBEGIN\nCOMMIT;\n\\x\nEND;\n$body$;",
        "CREATE PROCEDURE f() LANGUAGE plpgsql AS $$\nBEGIN\nINSERT INTO a VALUES ('it''s');\nCOMMIT;\nEND $$;",
        "INSERT INTO a VALUES ('two\nCOMMIT;\n\\! id\n');",
        "INSERT INTO a VALUES (E'it\\'s\nCOMMIT;\n\\\\');",
        'CREATE TABLE "odd\nBEGIN;\n\\name" ();',
        "/* \\connect x\nBEGIN;\n*/ SELECT 1;",
        "COPY public.a (n, t) FROM stdin;\n1\t\\N\nBEGIN;\n2\tit's\n\\.\nSELECT 1;",
        "SELECT 'a' AS \"it's\";",
        "SELECT $1, a$b FROM c;",
    ],
)
def test_texts_bodies_and_rows_are_not_touched(text: str) -> None:
    assert sent(text) == text.split("\n")


def test_what_a_dump_says_of_the_old_server_is_left_out() -> None:
    body = (
        "\\restrict abc\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\nCREATE SCHEMA audit;\n"
        "CREATE SCHEMA \"sales\";\nALTER SCHEMA audit OWNER TO old;\nCOMMENT ON EXTENSION pgcrypto IS 'it''s';\n"
        "CREATE TABLE public.a (n int);\nALTER TABLE public.a OWNER TO old;\nCOPY public.a (n) FROM stdin;\n"
        "ALTER TABLE x OWNER TO y;\n\\.\nGRANT SELECT ON TABLE public.a TO old;\n"
        "ALTER DEFAULT PRIVILEGES FOR ROLE old GRANT ALL ON TABLES TO x;\n\\unrestrict abc\n"
    )
    assert sent(HEAD + body + TAIL, "audit") == [
        *["--", "-- PostgreSQL database dump", "--", "SET statement_timeout = 0;", 'CREATE SCHEMA "sales";'],
        *["CREATE TABLE public.a (n int);", "COPY public.a (n) FROM stdin;", "ALTER TABLE x OWNER TO y;", "\\."],
        *["--", "-- PostgreSQL database dump complete", "--"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        (HEAD + "CREATE TABLE a ();\n", "it is cut off"),
        ("COPY a FROM stdin;\n1\n", "it is cut off"),
        ("INSERT INTO a VALUES ('x", "it is cut off"),
        ("CREATE FUNCTION f() AS $$\nBEGIN\n", "it is cut off"),
        (
            "SELECT 1;\n\\connect other\n",
            "line 2 changes the database (\\connect other): make the dump without --create",
        ),
        ("SELECT 1 \\! id\n", "line 1 has a command of psql's own"),
        ("\\i other.sql\n", "line 1 has a command of psql's own (\\i other.sql)"),
        ("a\0b", "neither SQL nor a dump"),
    ],
)
def test_what_cannot_be_loaded_is_said(text: str, words: str) -> None:
    with pytest.raises(dump.Unloadable) as caught:
        sent(text)
    assert words in str(caught.value)
