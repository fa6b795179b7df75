"""Checks of the apps' databases: whose they are, who shares one, and what is to be in them.

As those of `across`, they pass over what has the wrong shape: that was reported already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..module_utils.app_types import PROCESS_TYPES
from .app_fields import postgresql_name
from .names import LONGEST_POSTGRESQL_NAME, database_name, is_app_name
from .plan_postgresql import database_schemas, reader
from .postgresql_extensions import KNOWN, MEANT
from .problems import Path, Problem, listing, meant

Databases = Mapping[str, Mapping[str, Any]]


def check_databases(apps: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Each database in itself, and all of them against each other."""
    databases = {
        name: app["database"]
        for name, app in apps.items()
        if isinstance(app.get("database"), Mapping) and app.get("type") in PROCESS_TYPES
    }
    yield from _names(databases)
    yield from _shared(databases)
    yield from _schemas(databases)
    for name, database in databases.items():
        yield from _extensions(database, ("apps", name, "database"), variables)


def role_of(name: str, database: Mapping[str, Any]) -> str:
    """The role of an app, and the name of its database when it has one of its own."""
    given = database.get("name")
    return given if isinstance(given, str) else database_name(name)


def _names(databases: Databases) -> Iterator[Problem]:
    """Databases and roles are one app's alone."""
    seen: dict[str, str] = {}
    for name, database in databases.items():
        role = role_of(name, database)
        path: Path = ("apps", name, "database", "name")
        if "name" not in database and is_app_name(name) and (fault := postgresql_name(role)):
            found = f"nothing; from the app's name would follow {fault.found}"
            yield Problem(path, found, f"a name such as {role.removeprefix('pg_')}_app")
        if role in seen:
            wanted = f"a database of its own for each app, or `in: {role}` at one of them: a role and schemas in that"
            yield Problem(path, f"{role}, the database of apps.{seen[role]}", wanted)
        seen.setdefault(role, name)
    for name, database in databases.items():
        role = reader(role_of(name, database))
        path = ("apps", name, "database", "read_only")
        if not database.get("read_only"):
            continue
        if role in seen:
            found = f"a role {role}, which is that of apps.{seen[role]}"
            yield Problem(path, found, "another `name` for one of the two")
        if len(role) > LONGEST_POSTGRESQL_NAME:
            found = f"a role {role}, a name of {len(role)} bytes"
            yield Problem(path, found, f"a shorter `name`: PostgreSQL takes {LONGEST_POSTGRESQL_NAME} bytes")


def _owned(databases: Databases) -> dict[str, str]:
    """The databases, each with the app whose it is."""
    return {role_of(name, database): name for name, database in databases.items() if "in" not in database}


def _shared(databases: Databases) -> Iterator[Problem]:
    """Who has its schemas in another app's database."""
    owned = _owned(databases)
    for name, database in databases.items():
        path: Path = ("apps", name, "database")
        shared = database.get("in")
        if "in" not in database:
            continue
        if isinstance(shared, str) and shared not in owned and not postgresql_name(shared):
            others = [other for other in owned if owned[other] != name]
            guess = meant(shared.replace("-", "_"), others)
            question = f"did you mean `{guess}`? " if guess else ""
            known = f"one of: {listing(others)}" if others else "no such key: no other app has a database of its own"
            yield Problem((*path, "in"), f"{shared}, which is no other app's database", f"{question}{known}")
        if "load" in database:
            wanted = "no such key, or no `in`: a file is loaded into a new database, and that one is another app's"
            yield Problem((*path, "load"), "`load` beside `in`", wanted)
        if "name" in database:
            wanted = "one of the two: `name` for a database of its own, or `in` for schemas in another app's"
            yield Problem((*path, "name"), "`name` beside `in`", wanted)


def _schemas(databases: Databases) -> Iterator[Problem]:
    """A schema of a database is one app's."""
    seen: dict[tuple[str, str], str] = {}
    for name, database in databases.items():
        role = role_of(name, database)
        given = database.get("schemas")
        listed = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
        for schema in database_schemas(role, {**database, "schemas": listed}):
            path: Path = ("apps", name, "database", "schemas")
            key = (str(database.get("in") or role), schema)
            if key in seen and seen[key] != name:
                found = f"{schema}, a schema of apps.{seen[key]} in the same database"
                yield Problem(path, found, "each schema at one app")
            seen.setdefault(key, name)


def _extensions(database: Mapping[str, Any], path: Path, variables: Mapping[str, Any]) -> Iterator[Problem]:
    """An extension that no package is known to bring would fail on the droplet, after much else was done."""
    given = database.get("extensions")
    for index, name in enumerate(given if isinstance(given, list) else []):
        if not isinstance(name, str) or not name or name in KNOWN:
            continue
        guess = MEANT.get(name.lower()) or meant(name, KNOWN, 0.75)
        # What an unknown package brings, only the droplet can tell.
        if variables.get("postgresql_packages") and name.lower() not in MEANT:
            continue
        question = f"did you mean `{guess}`? " if guess else ""
        wanted = (
            f"{question}One of: {listing(KNOWN)}; or the Debian package that brings it in `postgresql_packages` beside "
            "`apps`, such as [postgresql-15-NAME]"
        )
        yield Problem((*path, "extensions", index), f"{name}, an extension that no package is known to bring", wanted)
