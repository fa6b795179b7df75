"""A small language for the shape of what the user writes, and the walk that compares a value with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from .problems import Fault, Path, Problem, Unresolved, describe, listing, meant, unknown_key

Check = Callable[[Any], Union[Fault, None]]


@dataclass(frozen=True)
class Text:
    """A text; `wanted` says which, and `secret` that it must never be shown."""

    wanted: str
    checks: tuple[Check, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class Number:
    """A whole number within bounds."""

    wanted: str
    low: int
    high: int


@dataclass(frozen=True)
class Decimal:
    """A number within bounds, whole or not."""

    wanted: str
    low: float
    high: float


@dataclass(frozen=True)
class Flag:
    """true or false."""

    wanted: str


@dataclass(frozen=True)
class Items:
    """A list; with `or_one`, a single value may stand for a list of one."""

    of: Kind
    wanted: str
    least: int = 0
    or_one: bool = False


@dataclass(frozen=True)
class Key:
    """One key of a table."""

    kind: Kind
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A dictionary with known keys. `elsewhere` says of keys known in another place why they are not in this one."""

    keys: Mapping[str, Key]
    wanted: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """A dictionary whose keys are the user's own."""

    of: Callable[[str], Kind]
    wanted: str
    key: Check
    #: What stands for a key in the reference.
    label: str = "NAME"


@dataclass(frozen=True)
class Scalar:
    """A value of an environment: text, number, true or false."""

    wanted: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A table whose other keys depend on the value of one."""

    key: str
    tables: Mapping[str, Table]
    wanted: str


@dataclass(frozen=True)
class OneOf:
    """A text (or true) in short, or a table that says more."""

    short: Text | Flag
    table: Table

    @property
    def wanted(self) -> str:
        return self.table.wanted


Kind = Union[Text, Number, Decimal, Flag, Items, Table, Pairs, Scalar, Choice, OneOf]


def compare(kind: Kind, value: Any, path: Path) -> Iterator[Problem]:
    """Everything in which a value differs from the kind it should be, at any depth."""
    if isinstance(value, Unresolved):
        yield Problem(path, value.reason, value.wanted)
        return
    walks: dict[type, Callable[[Any, Any, Path], Iterator[Problem]]] = {
        Text: _text,
        Number: _number,
        Decimal: _decimal,
        Flag: _flag,
        Items: _items,
        Table: _table,
        Pairs: _pairs,
        Scalar: _scalar,
        Choice: _choice,
        OneOf: _one_of,
    }
    yield from walks[type(kind)](kind, value, path)


def first_fault(checks: Sequence[Check], value: Any, path: Path) -> Iterator[Problem]:
    """The first check that finds fault: later ones would say the same thing less well."""
    for check in checks:
        if fault := check(value):
            yield Problem(path, fault.found, fault.wanted)
            return


def _wrong(path: Path, value: Any, wanted: str, secret: bool = False) -> Problem:
    return Problem(path, describe(value, secret), wanted)


def _text(kind: Text, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and value:
        yield from first_fault(kind.checks, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield _wrong(path, value, f"{kind.wanted}; in quotes, so that YAML takes it for text", kind.secret)
    else:
        yield _wrong(path, value, kind.wanted, kind.secret)


def _number(kind: Number, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and value.isdigit():
        yield _wrong(path, value, f"{kind.wanted}, without quotes")
    elif not isinstance(value, int) or isinstance(value, bool) or not kind.low <= value <= kind.high:
        yield _wrong(path, value, kind.wanted)


def _decimal(kind: Decimal, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and value.replace(".", "", 1).isdigit():
        yield _wrong(path, value, f"{kind.wanted}, without quotes")
    elif not isinstance(value, (int, float)) or isinstance(value, bool) or not kind.low <= value <= kind.high:
        yield _wrong(path, value, kind.wanted)


def _flag(kind: Flag, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "on", "off"}:
        yield _wrong(path, value, f"{kind.wanted}, without quotes")
    elif not isinstance(value, bool):
        yield _wrong(path, value, kind.wanted)


def _items(kind: Items, value: Any, path: Path) -> Iterator[Problem]:
    if kind.or_one and isinstance(value, str):
        yield from compare(kind.of, value, path)
    elif not isinstance(value, Sequence) or isinstance(value, str):
        yield _wrong(path, value, kind.wanted)
    elif len(value) < kind.least:
        yield Problem(path, describe(value), f"{kind.wanted}; at least {kind.least}")
    else:
        for index, entry in enumerate(value):
            yield from compare(kind.of, entry, (*path, index))


def _table(kind: Table, value: Any, path: Path) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, kind.wanted)
        return
    for name, entry in value.items():
        if name in kind.keys:
            yield from compare(kind.keys[name].kind, entry, (*path, name))
        elif name in kind.elsewhere:
            yield Problem((*path, name), "a key that does not belong here", kind.elsewhere[name])
        else:
            fault = unknown_key(str(name), kind.keys)
            yield Problem((*path, str(name)), fault.found, fault.wanted)
    # A required key that is only mistyped was just reported.
    mistyped = {meant(str(name), kind.keys) for name in value if name not in kind.keys}
    for name, key in kind.keys.items():
        if key.required and name not in value and name not in mistyped:
            yield Problem((*path, name), "nothing", key.kind.wanted)


def _pairs(kind: Pairs, value: Any, path: Path) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, kind.wanted)
        return
    for name, entry in value.items():
        if isinstance(name, str):
            yield from first_fault((kind.key,), name, (*path, name))
        else:
            yield Problem((*path, str(name)), f"a key that YAML reads as {describe(name)}", "the same in quotes")
        yield from compare(kind.of(str(name)), entry, (*path, str(name)))


def _scalar(kind: Scalar, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, (str, int, float)):
        yield from first_fault(kind.checks, str(value).lower() if isinstance(value, bool) else str(value), path)
    else:
        yield _wrong(path, value, kind.wanted, secret=True)


def _one_of(kind: OneOf, value: Any, path: Path) -> Iterator[Problem]:
    yield from compare(kind.table if isinstance(value, Mapping) else kind.short, value, path)


def _choice(kind: Choice, value: Any, path: Path) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield _wrong(path, value, kind.wanted)
        return
    chosen = value.get(kind.key)
    if isinstance(chosen, Unresolved):
        yield from compare(Text(kind.wanted), chosen, (*path, kind.key))
    elif isinstance(chosen, str) and chosen in kind.tables:
        yield from _table(kind.tables[chosen], value, path)
    else:
        yield Problem((*path, kind.key), describe(chosen), f"one of: {listing(kind.tables)}")
        # The rest is still compared with what any of them would take, so that nothing waits for the next run.
        merged = {name: Key(key.kind) for table in kind.tables.values() for name, key in table.keys.items()}
        rest = {name: entry for name, entry in value.items() if name != kind.key}
        yield from _table(Table(merged, kind.wanted), rest, path)
