"""A file of SQL, or a dump, as statements that its new owner can run in one transaction. Pure: lines in, lines out.

What comes out has as many lines as what went in, so that the line that the server names is that of the file.
"""

from __future__ import annotations

import re
from typing import FrozenSet, Iterable, Iterator

CUSTOM = b"PGDMP"
GZIP = b"\x1f\x8b"
HEADER = b"-- PostgreSQL database dump\n"
TRAILER = b"-- PostgreSQL database dump complete\n"
#: What pg_dump says of another server's roles, of extensions that are here already, and to clients newer than ours.
_OF_A_DUMP = re.compile(
    rb"(ALTER .+ OWNER TO .+|ALTER DEFAULT PRIVILEGES .+|(GRANT|REVOKE) .+|COMMENT ON EXTENSION .+"
    rb"|SET transaction_timeout = 0);\s*$|\\(un)?restrict \S+\s*$"
)
_CREATE_SCHEMA = re.compile(rb'CREATE SCHEMA "?([^";]+)"?;\s*$')
#: All of it is one transaction as it is.
_BEGIN_OR_COMMIT = re.compile(rb"\s*(BEGIN|COMMIT|START TRANSACTION)(\s+(WORK|TRANSACTION))?\s*;\s*(--.*)?$", re.I)
_COPY = re.compile(rb"\s*COPY\s.*\sFROM\s+stdin\b.*;\s*$", re.I)
_TOKEN = re.compile(
    rb"--[^\n]*|/\*|\*/|\b[eE]'|'|\"|\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$|\\|;|[\w\x80-\xff][\w$\x80-\xff]*|\S"
)
_ENDS = {
    b"'": re.compile(rb"'"),
    b"e'": re.compile(rb"\\.|'", re.S),
    b'"': re.compile(rb'"'),
    b"/*": re.compile(rb"\*/"),
}


class Unloadable(Exception):
    """The file cannot be loaded: why, and what to do."""


class _Reader:
    """Where in the SQL a line begins: between two statements, within one, within a text or within rows of COPY."""

    def __init__(self) -> None:
        self.inside = b""
        self.between = True
        self.copying = False

    def take(self, line: bytes, number: int) -> None:
        at = 0
        while at < len(line):
            if self.inside:
                at = self._leave(line, at)
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                return
            at, text = token.end(), token.group()
            if text.startswith(b"--"):
                continue
            if text == b"\\":
                raise Unloadable(_command(line, number))
            self.between = text == b";"
            if text in _ENDS and text != b"e'":
                self.inside = text
            elif text.endswith(b"'"):
                self.inside = text.lower()
            elif text.startswith(b"$") and text.endswith(b"$") and len(text) > 1:
                self.inside = text

    def _leave(self, line: bytes, at: int) -> int:
        pattern = _ENDS.get(self.inside) or re.compile(re.escape(self.inside))
        for found in pattern.finditer(line, at):
            if not found.group().startswith(b"\\"):
                self.inside = b""
                return found.end()
        return len(line)


def _command(line: bytes, number: int) -> str:
    text = line.strip().decode("utf-8", "replace")[:60]
    if text.startswith("\\connect"):
        return f"line {number} changes the database ({text}): make the dump without --create"
    return f"line {number} has a command of psql's own ({text}): SQL alone is loaded"


def _left_out(line: bytes, dump: bool, schemas: FrozenSet[str]) -> bool:
    """Whether a line that begins a statement is to be passed over."""
    if _BEGIN_OR_COMMIT.match(line):
        return True
    if not dump:
        return False
    schema = _CREATE_SCHEMA.match(line)
    return bool(_OF_A_DUMP.match(line)) or bool(schema and schema.group(1).decode("utf-8", "replace") in schemas)


def statements(lines: Iterable[bytes], schemas: FrozenSet[str] = frozenset()) -> Iterator[bytes]:
    """The lines to send. Raises Unloadable in the midst of them: what was sent by then must not be committed."""
    reader = _Reader()
    dump = complete = anything = False
    for number, line in enumerate(lines, 1):
        if reader.copying:
            reader.copying = line.rstrip(b"\r\n") != b"\\."
            yield line
            continue
        if b"\0" in line:
            raise Unloadable("it is neither SQL nor a dump in pg_dump's custom format (pg_dump -Fc)")
        dump = dump or line == HEADER
        complete = complete or line == TRAILER
        if reader.between and not reader.inside:
            if _left_out(line, dump, schemas):
                yield b"\n"
                continue
            reader.copying = bool(_COPY.match(line))
        reader.take(line, number)
        anything = anything or bool(line.strip())
        yield line
    if not anything:
        raise Unloadable("it is empty")
    if reader.copying or reader.inside or (dump and not complete):
        raise Unloadable("it is cut off: its end is missing. Copy it again, or make the dump again")
