"""The page that says what an inventory may hold, from the same declarations that the validation uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .app_fields import APP, COMMON, PROCESS_KEYS, ROUTE_KEYS, STATIC_KEYS
from .compose import COMPOSE_KEYS
from .container import CONTAINER_KEYS
from .fields import GLOBALS
from .schema import Choice, Decimal, Flag, Items, Key, Kind, Number, OneOf, Pairs, Scalar, Table, Text

# What holds when a key is left out; the tests compare it with the plan.
DEFAULTS = {
    "acme_directory": "Let's Encrypt",
    "acme_staging": "`false`",
    "private_address": "`ansible_host`",
    "docker": "`true`",
    "backup": "no backups",
    "backup.keep": "`{daily: 7, weekly: 4, monthly: 12}`",
    "backup.keep.daily": "`0`",
    "backup.keep.weekly": "`0`",
    "backup.keep.monthly": "`0`",
    "backup.schedule": '`"0 2 * * *"`',
    "backup.recovery_days": "as the nightly backups were",
    "backup.full": '`"30 1 * * 0"`',
    "backup.drill": "`monthly`",
    "backup.mail": "`hardening_updates_mail`",
    "backup.differential": '`"30 1 * * 1-6"`',
    "redis": "none",
    "redis.NAME.use": "the name",
    "redis.NAME.memory": '`"64mb"`',
    "redis.NAME.policy": "cache `allkeys-lru`, sessions `volatile-ttl`, queue `noeviction`",
    "redis.NAME.persistence": "cache `none`, sessions and queue `aof`",
    "redis.NAME.port": "from the name",
    "apps": "none",
    "apps.NAME.source.version": "`main`",
    "apps.NAME.source.path": "`.`",
    "apps.NAME.rate_limit": "no limit",
    "apps.NAME.rate_limit.burst": "a tenth of it, at least `20`, but less than it",
    "apps.NAME.rate_limits.PATH.burst": "as that of `rate_limit`",
    "apps.NAME.basic_auth.paths": "the whole site",
    "apps.NAME.allow": "everybody",
    "apps.NAME.maintenance": "`false`",
    "apps.NAME.max_body_size": '`"10m"`',
    "apps.NAME.keep_releases": "`5`",
    "apps.NAME.database": "no database",
    "apps.NAME.database.name": "the app's, with underscores",
    "apps.NAME.database.password": "made on the database host",
    "apps.NAME.database.in": "a database of its own",
    "apps.NAME.database.load": "nothing",
    "apps.NAME.database.schemas": "`public`",
    "apps.NAME.database.read_only": "`false`",
    "apps.NAME.database.read_only.password": "made on the database host",
    "apps.NAME.database.partitions.TABLE.keep_months": "all",
    "apps.NAME.database.partitions.TABLE.ahead": "`2`",
    "apps.NAME.database.connection_limit": "no limit",
    "apps.NAME.database.pool": "no pooler",
    "apps.NAME.health.status": "`200`",
    "apps.NAME.health.body": "any",
    "apps.NAME.health.start_period": "`60`",
    "apps.NAME.processes.NAME.count": "`1`",
    "apps.NAME.processes.NAME.once": "`false`",
    "apps.NAME.processes.NAME.stop_timeout": "`60`",
    "apps.NAME.processes.NAME.memory": "the app's",
    "apps.NAME.processes.NAME.cpus": "the app's",
    "apps.NAME.memory": "no limit",
    "apps.NAME.cpus": "no limit",
    "apps.NAME.port": "from the app's name",
    "apps.NAME.timeout": "`60`",
    "apps.NAME.watch": "`10`",
    "apps.NAME.strip": "`false`",
    "apps.NAME.priority": "`10`",
    "apps.NAME.locations.PATH.strip": "`false`",
    "apps.NAME.locations.PATH.priority": "`10`",
    "apps.NAME.cors.methods": "all usual ones",
    "apps.NAME.cors.headers": "`Authorization`, `Content-Type`",
    "apps.NAME.spa": "`false`",
}
_KINDS: dict[type, str] = {
    Text: "text",
    Number: "number",
    Decimal: "number",
    Flag: "true or false",
    Items: "list",
    Table: "dictionary",
    Pairs: "dictionary",
    Choice: "dictionary",
    Scalar: "text, number, true or false",
}


def _kind(kind: Kind) -> str:
    secret = ", secret" if isinstance(kind, Text) and kind.secret else ""
    if isinstance(kind, OneOf):
        return f"{_KINDS[type(kind.short)]} or dictionary"
    return _KINDS[type(kind)] + secret


def _rows(keys: Mapping[str, Key], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    for name, key in keys.items():
        path = f"{prefix}{name}"
        words = key.kind.wanted
        if prefix == "apps.NAME." and not all(name in table.keys for table in APP.tables.values()):
            types = [kind for kind, table in APP.tables.items() if name in table.keys]
            words += f" ({', '.join(types)} only)"
        yield path, _kind(key.kind), "**required**" if key.required else DEFAULTS.get(path, ""), words
        yield from _inner(key.kind, path)


def _inner(kind: Kind, path: str) -> Iterator[tuple[str, str, str, str]]:
    if isinstance(kind, Table):
        yield from _rows(kind.keys, f"{path}.")
    elif isinstance(kind, Items):
        yield from _inner(kind.of, f"{path}[]")
    elif isinstance(kind, OneOf):
        yield from _rows(kind.table.keys, f"{path}.")
    elif isinstance(kind, Pairs):
        yield from _inner(kind.of(kind.label), f"{path}.{kind.label}")
    elif isinstance(kind, Choice):
        merged = {**COMMON, **PROCESS_KEYS, **CONTAINER_KEYS, **COMPOSE_KEYS, **STATIC_KEYS, **ROUTE_KEYS}
        assert set(merged) == {name for table in kind.tables.values() for name in table.keys}
        yield from _rows(merged, f"{path}.")


def rows() -> list[tuple[str, str, str, str]]:
    """Each key with its kind, its default and what it is."""
    return list(_rows(GLOBALS))


def table() -> str:
    """All keys as a table of Markdown."""
    lines = ["| key | kind | default | what it is |", "|---|---|---|---|"]
    for row in rows():
        path, kind, default, words = (cell.replace("|", "\\|") for cell in row)
        lines.append(f"| `{path}` | {kind} | {default} | {words} |")
    return "\n".join(lines) + "\n"
