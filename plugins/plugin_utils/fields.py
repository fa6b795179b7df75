"""What the user writes: the globals and `apps`, declared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..module_utils.app_types import HOOKS
from .checks import (
    ISSUED,
    absolute_path,
    basic_password,
    command,
    deploy_key,
    email,
    environment_value,
    git_url,
    host_key,
    hostname,
    https_url,
    matches,
    network,
    placeholder,
    public_key,
    relative_path,
    schedule,
    secret_https_url,
    shell,
    site_domain,
    strong,
    url_path,
)
from .compose import COMPOSE_KEYS, COMPOSE_ONLY
from .compose import ELSEWHERE as ELSEWHERE_IN_COMPOSE
from .container import CONTAINER_KEYS, ELSEWHERE, inner_path
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
from .site import is_of_the_proxy


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
    if value in POSTGRESQL_DATABASES:
        return Fault(f"{value}, which belongs to PostgreSQL itself", "another name")
    if value.startswith("pg_"):
        return Fault(f"{value}; PostgreSQL keeps the prefix pg_ for itself", "another name")
    if value in POSTGRESQL_RESERVED:
        return Fault(f"{value}, a reserved word of SQL", f"another name, such as {value}_app")
    return None


def admin_name(value: str) -> Fault | None:
    """The name of an admin, who becomes a Unix user with sudo."""
    if value in SYSTEM_USERS - {"ubuntu", "debian"}:
        return Fault(f"{value}, a system user", "a person's or a team's name, such as deploy; root's login is shut")
    if len(value) > LONGEST_USER_NAME:
        return Fault(f"a name of {count(len(value), 'character')}", f"{LONGEST_USER_NAME} characters at most")
    return matches("[a-z_][a-z0-9_-]*", "a Unix user's name: lower-case letters, digits, hyphens, such as deploy")(
        value
    )


def environment_name(value: str) -> Fault | None:
    """The name of an environment variable."""
    if is_environment_name(value):
        return None
    return Fault("a name that no environment variable can have", "letters, digits and underscores, no digit first")


def filled_in(wanted: str, pattern: str) -> Text:
    """A text that must not be a placeholder."""

    def check(value: str) -> Fault | None:
        return Fault("a placeholder", wanted) if placeholder(value) else matches(pattern, wanted)(value)

    return Text(wanted, (check,))


def environment(name: str) -> Kind:
    return Scalar(
        'a text, a number, or true or false (which the app sees as the words); "" for an empty one',
        (environment_value(name),),
    )


GIT = "the repository's address, such as https://host/path.git"
ADMINS = 'a list of admins, such as [{name: deploy, ssh_keys: ["ssh-ed25519 AAAA… laptop"]}]'
ENVIRONMENT = "the environment's name in lower-case letters, digits and hyphens, such as production"
DOMAINS = "a list of domains, or of paths on domains, such as [api.example.com, example.com/api]"
PATHS = "a list of paths, such as [/ws]"
URL_PATH = "a path of the site, such as /health"
POLICY = "how many backups to keep, such as {daily: 30, monthly: 12}"

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

RATE_LIMIT = Table(
    {
        "per_second": Key(Number("requests a second and address, 1 to 1000000", 1, 1000000)),
        "per_minute": Key(Number("requests a minute and address, 1 to 1000000", 1, 1000000)),
        "per_hour": Key(Number("requests an hour and address, 60 to 10000000", 60, 10000000)),
        "burst": Key(Number("requests let through at once, 0 to 1000000", 0, 1000000)),
    },
    "a limit for each address, such as {per_minute: 1000}; with {per_minute: 1000, per_hour: 10000} both hold",
)

DATABASE = Table(
    {
        "name": Key(Text("the database's name, such as malar_api", (postgresql_name,))),
        "extensions": Key(Items(Text("an extension's name"), "a list of extensions, such as [pgcrypto]")),
        "password": Key(
            Text("a password from the vault; without one, the database host makes its own", (strong(),), True)
        ),
    },
    "{} for a database of its own, or its settings, such as {extensions: [pgcrypto]}",
)


def request_header(value: str) -> Fault | None:
    """The name of a header that another host gets."""
    if fault := matches("[A-Za-z0-9-]+", "the name of a header: letters, digits and hyphens")(value):
        return fault
    return Fault(f"{value}, which the proxy itself sets", "no such header") if is_of_the_proxy(value) else None


UPSTREAM = Text("the https URL of another host, such as https://api.example.com", (https_url,))
REQUEST_HEADERS = Pairs(
    lambda _name: Text("the header's value", (matches(r"[ -~]+", "a text in one line of plain characters"),)),
    "headers, such as {X-Script-Name: /superset}",
    request_header,
)
PLAIN_PATH = matches(r"(/[A-Za-z0-9._~-]+)+", "a path below /, such as /token, with no slash at its end")


def response_header(value: str) -> Fault | None:
    """The name of a header that a site adds to its answers."""
    if fault := matches("[A-Za-z0-9-]+", "the name of a header: letters, digits and hyphens")(value):
        return fault
    if value.lower() == "strict-transport-security":
        return Fault(f"{value}, which the proxy itself sets", "`nginx_hsts`, which holds for all sites")
    if value.lower().startswith("access-control-"):
        return Fault(f"{value}, which the proxy itself sets", "`cors` beside `headers`")
    if value.lower() in {"content-length", "content-encoding", "transfer-encoding", "connection", "date", "server"}:
        return Fault(f"{value}, which the proxy itself sets", "no such header")
    return None


HEADERS = Pairs(
    lambda _name: Scalar(
        'the header\'s value, or "" for no such header', (matches(r"[ -~]*", "a text in one line of plain characters"),)
    ),
    "headers of all answers, such as {Content-Security-Policy: \"default-src 'self'\"}",
    response_header,
)
BASIC_AUTH = Table(
    {
        "users": Key(
            Pairs(
                lambda _name: Text("a password from the vault", (basic_password,), True),
                'names with their passwords, such as {ops: "{{ vault_ops_password }}"}',
                matches(r"[A-Za-z0-9._@-]+", "a user's name: letters, digits and ._@-"),
            ),
            required=True,
        ),
        "paths": Key(
            Items(Text("a path of the site", (PLAIN_PATH,)), "the paths to guard, such as [/admin]", 1, or_one=True)
        ),
    },
    'who may come, such as {users: {ops: "{{ vault_ops_password }}"}}',
)
MAINTENANCE = OneOf(
    Flag("true (closed: everybody is told to come again, but for the health path) or false"),
    Table(
        {"message": Key(Text("what the page says, in plain text"), required=True)},
        'true, or {message: "Back at 18:00."}: everybody is told to come again',
    ),
)
LOCATION = Table(
    {
        "url": Key(UPSTREAM, required=True),
        "strip": Key(Flag("true (the other host does not see the path itself) or false")),
        "priority": Key(Number("which path goes first, 1 to 1000; without it 10, and the longer path first", 1, 1000)),
        "request_headers": Key(REQUEST_HEADERS),
    },
    "the https URL of another host, or {url: …, strip: true}",
)
CORS = Table(
    {
        "origins": Key(
            Items(
                Text(
                    "an origin, such as https://app.example.com",
                    (matches(r"https://[A-Za-z0-9.-]+(:\d+)?", "an origin: https://, a name, no path"),),
                ),
                "a list of origins, such as [https://app.example.com]",
                least=1,
            ),
            required=True,
        ),
        "methods": Key(
            Items(
                Text("a method of HTTP, such as GET", (matches("[A-Z]+", "a method of HTTP, such as GET"),)),
                "a list of methods, such as [GET, POST]",
            )
        ),
        "headers": Key(
            Items(
                Text("the name of a header", (matches("[A-Za-z0-9-]+", "the name of a header"),)),
                "a list of headers, such as [Authorization]",
            )
        ),
    },
    "whose scripts may ask, such as {origins: [https://app.example.com]}",
)

DOMAIN_LIST = Items(Text("a domain, or a path of one", (site_domain,)), DOMAINS)
SOME_DOMAINS = Key(replace(DOMAIN_LIST, least=1), required=True)
ROUTING = {
    "domains": Key(DOMAIN_LIST),
    "strip": Key(Flag("true (the app does not see the path of `domains` at which it is) or false")),
    "priority": Key(
        Number("which path of a domain goes first, 1 to 1000; without it 10, and the longer path first", 1, 1000)
    ),
    "request_headers": Key(REQUEST_HEADERS),
    "redirect_domains": Key(
        Items(Text("a domain", (hostname,)), "a list of domains that lead to the first of `domains`")
    ),
    "rate_limit": Key(RATE_LIMIT),
    "rate_limits": Key(
        Pairs(
            lambda _path: RATE_LIMIT,
            "limits by path, such as {/token: {per_minute: 5}}, beside `rate_limit`",
            PLAIN_PATH,
            label="PATH",
        )
    ),
    "headers": Key(HEADERS),
    "basic_auth": Key(BASIC_AUTH),
    "allow": Key(
        Items(
            Text("an address or a network, such as 198.51.100.0/24", (network,)),
            "who may come, such as [198.51.100.0/24]; everybody else is refused, but for the health path",
            1,
            or_one=True,
        )
    ),
    "maintenance": Key(MAINTENANCE),
    "cors": Key(CORS),
    "locations": Key(
        Pairs(
            lambda _path: OneOf(UPSTREAM, LOCATION),
            'paths that another host serves, such as {/api: "https://api.example.com"}',
            url_path,
            label="PATH",
        )
    ),
    "max_body_size": Key(filled_in('the largest request, such as "10m"', "[1-9][0-9]*[kmg]?")),
}
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
    "hooks": hooks(HOOKS),
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
#: A moment of a build, which an image has behind it.
BUILD_HOOKS = ("before_build", "after_build")
STATIC_KEYS = {
    "spa": Key(Flag("true (unknown paths show index.html) or false")),
    "publish": Key(Text("the folder that the build puts the site into, such as dist", (relative_path,))),
}
#: What a site that is built here has in common with an app that is.
BUILT_KEYS = {"build": BUILD, "env": ENV, "hooks": hooks(BUILD_HOOKS)}

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
                    tuple(moment for moment in HOOKS if moment not in BUILD_HOOKS),
                    dict.fromkeys(BUILD_HOOKS, "no such key: an image is built where it is pushed from, not here"),
                ),
                **CONTAINER_KEYS,
            },
            "an app: type, image, container_port, domains, …",
            {
                **{name: "no such key: it is for type: static" for name in STATIC_KEYS},
                **{name: "no such key: a container has no code here" for name in PROCESS_KEYS},
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
                    tuple(moment for moment in HOOKS if moment not in BUILD_HOOKS),
                    dict.fromkeys(BUILD_HOOKS, "no such key: what is built, the Compose file and its Dockerfiles say"),
                ),
                **COMPOSE_KEYS,
            },
            "an app: type, source, service, container_port, domains, …",
            {
                **{name: "no such key: it is for type: static" for name in STATIC_KEYS},
                **{name: "no such key: the Compose file says that" for name in {**PROCESS_KEYS, **CONTAINER_KEYS}},
                **ELSEWHERE_IN_COMPOSE,
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

S3 = Table(
    {
        "endpoint": Key(Text("the store's https URL, such as https://fra1.digitaloceanspaces.com", (https_url,)), True),
        "bucket": Key(
            filled_in("a bucket's name: 3 to 63 of a-z, 0-9, dot, hyphen", "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), True
        ),
        "access_key": Key(Text("the access key, from the vault", (strong(8, ISSUED),), True), True),
        "secret_key": Key(Text("the secret key, from the vault", (strong(8, ISSUED),), True), True),
        "region": Key(Text("the store's region, such as fra1")),
    },
    "the S3 store: endpoint, bucket, access_key, secret_key",
)


def _keep(period: str) -> Key:
    return Key(Number(f"how many {period} backups to keep, 0 to 1000", 0, 1000))


BACKUP = Table(
    {
        "s3": Key(S3, True),
        "password": Key(Text("the password that encrypts the backups, from the vault", (strong(),), True), True),
        "keep": Key(Table({period: _keep(period) for period in ("daily", "weekly", "monthly")}, POLICY)),
        "schedule": Key(Text('when, as cron reads it, such as "0 2 * * *"', (schedule,))),
        "paths": Key(Items(Text("a path on the droplet", (absolute_path,)), "a list of paths on the droplet")),
        "webhook": Key(Text("the https URL that hears of a failed backup", (secret_https_url,), True)),
    },
    "s3, password, and as needed keep, schedule, paths, webhook",
)

ADMIN = Table(
    {
        "name": Key(Text("the admin's user name, such as deploy", (admin_name,)), True),
        "ssh_keys": Key(Items(Text("a public SSH key", (public_key,)), "a list of public SSH keys", least=1), True),
    },
    'an admin, such as {name: deploy, ssh_keys: ["ssh-ed25519 AAAA… laptop"]}',
)

PROXY = "nginx (as without this key) or traefik"
TLS_POLICY = "intermediate (TLS 1.2 and 1.3, as without this key) or modern (1.3 only)"
ACME_DIRECTORY = "the https URL of the certificate authority's directory; without one, Let's Encrypt"

ACME_DNS = Table(
    {
        "provider": Key(
            Text("digitalocean", (matches("digitalocean", "digitalocean, the one provider that is known here"),)), True
        ),
        "token": Key(Text("a token for the provider's API, from the vault", (strong(20, ISSUED),), True), True),
        "propagation_seconds": Key(
            Number("seconds until all of the provider's name servers know a record, 1 to 3600", 1, 3600)
        ),
    },
    'who has your zones, such as {provider: digitalocean, token: "{{ vault_digitalocean_token }}"}: names are then '
    "proven by records in DNS and may be wildcards",
)

GLOBALS = {
    "proxy": Key(Text(PROXY, (matches("nginx|traefik", PROXY),))),
    "http3": Key(Flag("true (HTTP/3 beside HTTP/2, on port 443 of UDP; nginx from 1.25 on) or false")),
    "tls_policy": Key(Text(TLS_POLICY, (matches("intermediate|modern", TLS_POLICY),))),
    "acme_email": Key(Text("your email address: the certificate authority writes to it", (email,))),
    "acme_directory": Key(Text(ACME_DIRECTORY, (https_url,))),
    "acme_dns": Key(ACME_DNS),
    "acme_staging": Key(Flag("true (test certificates that browsers refuse) or false")),
    "admins": Key(Items(ADMIN, ADMINS, least=1), required=True),
    "environment_name": Key(
        Text(
            ENVIRONMENT,
            (matches("[a-z][a-z0-9-]*", ENVIRONMENT),),
        )
    ),
    "private_address": Key(Text("the address at which the other hosts reach this one")),
    "docker": Key(Flag("true (Docker on the hosts that run apps, as without this key) or false")),
    "backup": Key(BACKUP),
    "deploy_webhook": Key(Text("the https URL that hears of deploys, in Slack's form", (secret_https_url,), True)),
    "apps": Key(Pairs(lambda _name: APP, "the apps, each under its name", app_name)),
}

# What the wiring fills from the globals, and would therefore not be read under the role's own name.
WIRED = {
    "hardening_admins": "admins",
    "hardening_environment": "environment_name",
    "hardening_contributed_firewall_rules": "hardening_firewall_rules",
    "hardening_contributed_forwarding": "",
    "docker_published_ports": "hardening_firewall_rules",
    "hardening_contributed_jails": "",
    "nginx_http3": "http3",
    "traefik_http3": "http3",
    "nginx_acme_webroot": "",
    "traefik_acme_webroot": "",
    "certbot_email": "acme_email",
    "certbot_directory": "acme_directory",
    "certbot_staging": "acme_staging",
    "certbot_dns": "acme_dns",
    "traefik_acme_dns": "acme_dns",
    "certbot_webroot": "",
    "certbot_reload_command": "",
    "app_list": "apps",
    "app_hosts": "",
    "app_proxies": "",
    "app_proxy": "`proxy`",
    "app_proxy_user": "",
    "app_webhook": "deploy_webhook",
    "app_break_lock": "",
    "backup_s3": "backup.s3",
    "backup_password": "backup.password",
    "backup_paths": "backup.paths",
    "backup_keep": "backup.keep",
    "backup_schedule": "backup.schedule",
    "backup_webhook": "backup.webhook",
}
# Given on the command line, not in the inventory.
OPERATOR_VARIABLES = frozenset({"app", "break_lock", "confirm_environment", "migrations", "reboot", "version", "to"})
