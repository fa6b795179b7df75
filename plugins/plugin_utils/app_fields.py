"""What the user writes of an app, declared type by type."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .checks import (
    command,
    deploy_key,
    environment_value,
    git_url,
    host_key,
    https_url,
    matches,
    relative_path,
    schedule,
    shell,
    strong,
    url_path,
)
from .compose import COMPOSE_KEYS, COMPOSE_ONLY
from .compose import ELSEWHERE as ELSEWHERE_IN_COMPOSE
from .container import CONTAINER_KEYS, ELSEWHERE, inner_path
from .hooks import OF_A_BUILD, moments_of
from .names import (
    LONGEST_POSTGRESQL_NAME,
    LONGEST_USER_NAME,
    POSTGRESQL_DATABASES,
    POSTGRESQL_RESERVED,
    SYSTEM_USERS,
    is_app_name,
    is_environment_name,
    is_postgresql_name,
)
from .problems import Fault, count, listing, quoted
from .schema import Choice, Decimal, Flag, Items, Key, Kind, Number, OneOf, Pairs, Scalar, Table, Text
from .site_fields import ROUTING, SOME_DOMAINS, UPSTREAM, filled_in


def app_name(value: str) -> Fault | None:
    """The name of an app, which becomes a user, a directory, a unit and a database."""
    if len(value) > LONGEST_USER_NAME:
        found = f"an app name of {count(len(value), 'character')}"
        return Fault(found, f"{LONGEST_USER_NAME} characters at most: it becomes a Unix user")
    if not is_app_name(value):
        wanted = "lower-case letters, digits and hyphens, a letter first, such as malar-api"
        return Fault("a name that no Unix user can have", wanted)
    if value in SYSTEM_USERS:
        return Fault(
            "the name of a system user", f"another name, such as {value}-app: it becomes a Unix user of its own"
        )
    return None


def postgresql_name(value: str) -> Fault | None:
    """The name of a database, and of the role that owns it."""
    if len(value.encode()) > LONGEST_POSTGRESQL_NAME:
        found = f"a name of {len(value.encode())} bytes"
        return Fault(found, f"{LONGEST_POSTGRESQL_NAME} bytes at most: PostgreSQL cuts off the rest")
    if not is_postgresql_name(value):
        wanted = "lower-case letters, digits and underscores, a letter first: PostgreSQL takes no other without quotes"
        return Fault(quoted(value), wanted)
    if value == "pgbouncer":
        return Fault("pgbouncer, the name of PgBouncer's own console and role", "another name")
    if value in POSTGRESQL_DATABASES:
        return Fault(f"{value}, which belongs to PostgreSQL itself", "another name")
    if value.startswith("pg_"):
        return Fault(f"{value}; PostgreSQL keeps the prefix pg_ for itself", "another name")
    if value in POSTGRESQL_RESERVED:
        return Fault(f"{value}, a reserved word of SQL", f"another name, such as {value}_app")
    return None


def schema_name(value: str) -> Fault | None:
    """The name of a schema beside those that every database has."""
    if value in ("public", "information_schema"):
        return Fault(f"{value}, which every database has", "further ones alone, such as [audit], or no such key")
    return postgresql_name(value)


def environment_name(value: str) -> Fault | None:
    """The name of an environment variable."""
    if is_environment_name(value):
        return None
    return Fault("a name that no environment variable can have", "letters, digits and underscores, no digit first")


def environment(name: str) -> Kind:
    return Scalar(
        'a text, a number, or true or false (which the app sees as the words); "" for an empty one',
        (environment_value(name),),
    )


COLUMN = "[a-z_][a-z0-9_]*"
GIT = "the repository's address, such as https://host/path.git"
PATHS = "a list of paths, such as [/ws]"
URL_PATH = "a path of the site, such as /health"

HOST_KEY = "the public key of the git server, as `ssh-keyscan -t ed25519 HOST` prints it; none for GitHub and the like"
CHECKSUM = "the archive's checksum, such as sha256:…, as `sha256sum` prints it"
SOURCE = Table(
    {
        "git": Key(Text(GIT, (git_url,))),
        "deploy_key": Key(Text("the private key that may read the repository over ssh", (deploy_key,), True)),
        "host_key": Key(Text(HOST_KEY, (host_key,))),
        "archive": Key(Text("an archive's https URL, such as https://host/site-1.4.tar.gz", (https_url,))),
        "checksum": Key(Text(CHECKSUM, (matches("sha256:[0-9a-f]{64}", CHECKSUM),))),
        "version": Key(
            Text("a branch, a tag or a commit", (matches(r"[\w.+][\w./+-]*", "a branch, a tag or a commit"),))
        ),
        "path": Key(Text("a folder of the repository, or of the archive, such as backend", (relative_path,))),
    },
    'where the code is, such as {git: "https://host/path.git", version: main}, or an archive with its checksum',
)

PASSWORD = Key(Text("a password from the vault; without one, the database host makes its own", (strong(),), True))
PARTITIONS = Table(
    {
        "by": Key(
            filled_in("the column of a date or time that it is partitioned by, such as created_at", COLUMN), True
        ),
        "keep_months": Key(
            Number("full months beside the current one that are kept, 1 to 1200; without it all", 1, 1200)
        ),
        "ahead": Key(Number("months that are made before they begin, 1 to 24", 1, 24)),
    },
    "how a table is partitioned, such as {by: created_at, keep_months: 12}",
)
LOAD = (
    "SQL or a dump that the new database begins with, loaded once: a file on your machine (beside the inventory, or "
    "with an absolute path), such as schema.sql; what is in the app's code is for `migrate` and `seed`"
)
DATABASE = Table(
    {
        "name": Key(Text("the database's name, such as malar_api", (postgresql_name,))),
        "in": Key(
            Text("another app's database, in which this one has a role and schemas of its own", (postgresql_name,))
        ),
        "schemas": Key(
            Items(Text("a schema's name, such as audit", (schema_name,)), "a list of schemas, such as [audit]")
        ),
        "load": Key(Text(LOAD)),
        "extensions": Key(Items(Text("an extension's name"), "a list of extensions, such as [pgcrypto]")),
        "password": PASSWORD,
        "read_only": Key(
            OneOf(
                Flag("true (a role NAME_read that may read all the app has, with a password made there) or false"),
                Table({"password": PASSWORD}, "true, or {password: …}: a role NAME_read that may read all the app has"),
            )
        ),
        "partitions": Key(
            Pairs(
                lambda _name: PARTITIONS,
                "tables with a partition for each month, such as {logs: {by: created_at, keep_months: 12}}; the app's "
                "migration creates the table, PARTITION BY RANGE",
                matches(rf"({COLUMN}\.)?{COLUMN}", "a table's name, such as logs or audit.logs"),
                "TABLE",
            )
        ),
        "connection_limit": Key(Number("connections the app's role may have at once, 1 to 10000", 1, 10000)),
        "pool": Key(
            Number(
                "how many connections the app shares in PgBouncer's transaction mode, 1 to 1000; without it none",
                1,
                1000,
            )
        ),
    },
    "{} for a database of its own, or its settings, such as {extensions: [pgcrypto]}",
)


COMMON = {
    "type": Key(Text("python, command, container, compose, static or route"), required=True),
    "source": Key(SOURCE, required=True),
    **ROUTING,
    "packages": Key(
        Items(
            filled_in("the name of a Debian package, such as redis-server", "[a-z0-9][a-z0-9.+-]+"),
            "a list of Debian packages, such as [redis-server]",
        )
    ),
    "keep_releases": Key(Number("how many releases stay on the droplet, 2 to 50", 2, 50)),
}

BUILD = Key(Text("what makes the release out of the code, such as npm ci && npm run build", (shell,)))
ENV = Key(Pairs(environment, "the app's environment, such as {ENVIRONMENT: production}", environment_name))


def regular_expression(value: str) -> Fault | None:
    """A text that can be looked for."""
    try:
        re.compile(value)
    except re.error as error:
        return Fault(f"{quoted(value)}, which is no regular expression ({error})", "a text, or a regular expression")
    return None


def hooks(moments: tuple[str, ...], elsewhere: Mapping[str, str] | None = None) -> Key:
    return Key(
        Table(
            {moment: Key(Text("a command, such as python manage.py check", (shell,))) for moment in moments},
            f"commands by the moment they are run at: {listing(moments)}",
            elsewhere or {},
        )
    )


HEALTH = Table(
    {
        "path": Key(Text(URL_PATH, (url_path,)), True),
        "status": Key(Number("the status of a healthy app, 200 to 499; without it 200", 200, 499)),
        "body": Key(Text("a text (a regular expression) that the answer of a healthy app has", (regular_expression,))),
        "start_period": Key(Number("seconds the app may take until it is healthy, 1 to 3600", 1, 3600)),
    },
    'a path of the site, or {path: /health, status: 200, body: "ok", start_period: 120}',
)
MEMORY = Key(filled_in('the most memory of one process, such as "512M" or "2G"', "[1-9][0-9]*[KMG]"))
CPUS = Key(Decimal("processors of one process, 0.05 to 64, such as 1.5", 0.05, 64))
PROCESS = Table(
    {
        "command": Key(Text("the one command of the process", (command,)), True),
        "count": Key(Number("how many of it on each host, 1 to 32", 1, 32)),
        "once": Key(Flag("true (on the first app host alone, such as a scheduler) or false")),
        "stop_timeout": Key(Number("seconds it may take to finish its work, 1 to 3600; without it 60", 1, 3600)),
        "memory": MEMORY,
        "cpus": CPUS,
    },
    "a command, or {command: celery -A app worker, count: 2}",
)
CRON = Table(
    {
        "schedule": Key(Text('when, as cron reads it, such as "0 3 * * *"', (schedule,)), True),
        "command": Key(Text("a command", (shell,)), True),
    },
    'when and what, such as {schedule: "0 3 * * *", command: python -m app.cleanup}',
)
PROCESS_NAME = matches("[a-z][a-z0-9_]{0,30}", "a name in lower-case letters, digits and underscores, such as worker")

MIGRATE_COMMAND = Text("what migrates the database, such as alembic upgrade head", (shell,))
MIGRATE = Table(
    {
        "sql": Key(
            Text("a folder of the code with NAME.sql and NAME.down.sql or NAME_rollback.sql", (relative_path,)), True
        )
    },
    "what migrates the database, such as alembic upgrade head, or {sql: migrations}",
)

INNER_SQL = Table(
    {"sql": Key(Text("a folder of the image, such as /app/migrations", (inner_path,)), True)},
    "what migrates the database, such as alembic upgrade head, or {sql: /app/migrations}",
)

PROCESS_KEYS = {
    "build": BUILD,
    "command": Key(
        Text("what starts the app, such as uvicorn app.main:app --host $HOST --port $PORT", (command,)), True
    ),
    "migrate": Key(OneOf(MIGRATE_COMMAND, MIGRATE)),
    "seed": Key(Text("what is run once, after the first migration, such as python -m app.seed", (shell,))),
    "hooks": hooks(moments_of("python")),
    "processes": Key(
        Pairs(
            lambda _name: OneOf(Text("the one command of the process", (command,)), PROCESS),
            "what runs beside it, such as {worker: celery -A app worker}",
            PROCESS_NAME,
        )
    ),
    "cron": Key(
        Pairs(
            lambda _name: CRON,
            'what is run at times, such as {cleanup: {schedule: "0 3 * * *", command: python -m app.cleanup}}',
            PROCESS_NAME,
        )
    ),
    "memory": MEMORY,
    "cpus": CPUS,
    "shared": Key(
        Items(
            Text("a folder of the code that all releases share, such as uploads", (relative_path,)),
            "a list of folders of the code, such as [uploads]",
            or_one=True,
        )
    ),
    "health": Key(OneOf(Text(URL_PATH, (url_path,)), HEALTH)),
    "websocket": Key(Items(Text("a path of the site, such as /ws", (url_path,)), PATHS, or_one=True)),
    "database": Key(DATABASE),
    "redis": Key(
        Items(
            Text("the name of an instance in `redis`"),
            "the instances of Redis it uses, such as cache or [cache, sessions]",
            or_one=True,
        )
    ),
    "env": ENV,
    "port": Key(Number("a port from 1024 to 32766, or no key: then one follows from the app's name", 1024, 32766)),
    "timeout": Key(Number("seconds a request may take, 1 to 3600", 1, 3600)),
    "watch": Key(Number("seconds a new release is watched before the old one is stopped, 0 to 3600", 0, 3600)),
}
ROUTE_KEYS = {"url": Key(UPSTREAM, required=True), "timeout": PROCESS_KEYS["timeout"]}
#: What an image has in common with an app from a checkout.
IMAGE_KEYS = (
    *("seed", "processes", "cron", "memory", "cpus", "health", "websocket", "database", "env", "port", "timeout"),
    "watch",
)
NO_REDIS = "no such key: Redis listens where a container of the same host does not come to; run one beside it"
STATIC_KEYS = {
    "spa": Key(Flag("true (unknown paths show index.html) or false")),
    "publish": Key(Text("the folder that the build puts the site into, such as dist", (relative_path,))),
}
#: What a site that is built here has in common with an app that is.
BUILT_KEYS = {
    "build": BUILD,
    "env": ENV,
    "hooks": hooks(
        moments_of("static"),
        {
            moment: "no such key: a static site has no process, and nothing to migrate"
            for moment in moments_of("python")
            if moment not in moments_of("static")
        },
    ),
}

_NO_PROCESS = "no such key: a static site is files alone, no process. Was type: python meant?"
_PROCESS = Table(
    {**COMMON, **PROCESS_KEYS},
    "an app: type, source, command, domains, …",
    {
        **{name: "no such key: it is for type: static" for name in STATIC_KEYS},
        **{name: "no such key: it is for type: container" for name in CONTAINER_KEYS},
        **{name: "no such key: it is for type: compose" for name in COMPOSE_ONLY},
        "url": "no such key: it is for type: route",
    },
)
APP = Choice(
    "type",
    {
        "python": _PROCESS,
        "command": _PROCESS,
        "static": Table(
            {
                **COMMON,
                **STATIC_KEYS,
                **BUILT_KEYS,
                "domains": SOME_DOMAINS,
            },
            "a site: type, source, domains, …",
            {
                **{
                    name: _NO_PROCESS
                    for name in {**PROCESS_KEYS, **CONTAINER_KEYS, **COMPOSE_KEYS}
                    if name not in BUILT_KEYS
                },
                "url": "no such key: it is for type: route",
            },
        ),
        "container": Table(
            {
                **{key: COMMON[key] for key in ("type", *ROUTING, "keep_releases")},
                **{key: PROCESS_KEYS[key] for key in IMAGE_KEYS},
                "migrate": Key(OneOf(MIGRATE_COMMAND, INNER_SQL)),
                "hooks": hooks(
                    moments_of("container"),
                    dict.fromkeys(OF_A_BUILD, "no such key: an image is built where it is pushed from, not here"),
                ),
                **CONTAINER_KEYS,
            },
            "an app: type, image, container_port, domains, …",
            {
                **{name: "no such key: it is for type: static" for name in STATIC_KEYS},
                **{name: "no such key: a container has no code here" for name in PROCESS_KEYS},
                "redis": NO_REDIS,
                **{name: "no such key: it is for type: compose" for name in COMPOSE_ONLY},
                **ELSEWHERE,
                "url": "no such key: it is for type: route",
            },
        ),
        "compose": Table(
            {
                **{key: COMMON[key] for key in ("type", "source", *ROUTING, "keep_releases")},
                **{key: PROCESS_KEYS[key] for key in (*IMAGE_KEYS, "shared") if key != "processes"},
                "migrate": Key(MIGRATE_COMMAND),
                "hooks": hooks(
                    moments_of("compose"),
                    dict.fromkeys(OF_A_BUILD, "no such key: what is built, the Compose file and its Dockerfiles say"),
                ),
                **COMPOSE_KEYS,
            },
            "an app: type, source, service, container_port, domains, …",
            {
                **{name: "no such key: it is for type: static" for name in STATIC_KEYS},
                **{name: "no such key: the Compose file says that" for name in {**PROCESS_KEYS, **CONTAINER_KEYS}},
                **ELSEWHERE_IN_COMPOSE,
                "redis": NO_REDIS,
                "url": "no such key: it is for type: route",
            },
        ),
        "route": Table(
            {
                "type": COMMON["type"],
                **ROUTING,
                **ROUTE_KEYS,
                "domains": SOME_DOMAINS,
            },
            "a route to another host: type, url, domains, …",
            {
                name: "no such key: a route has nothing of its own on the droplet"
                for name in {**COMMON, **PROCESS_KEYS, **CONTAINER_KEYS, **COMPOSE_KEYS, **STATIC_KEYS}
                if name not in {*ROUTING, *ROUTE_KEYS, "type"}
            },
        ),
    },
    "an app: type, source, domains, …",
)
