"""Checks that look at more than one value: of an app, of all apps, of the globals together.

They run beside the checks of shape, on values that may be of any shape: what has the wrong one was already reported and
is passed over here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..module_utils import app_deploy_key
from ..module_utils.app_types import CODE_TYPES, PROCESS_TYPES
from .checks import DEPLOY_KEY
from .compose import check_compose
from .container import check_container
from .databases import check_databases
from .hooks import OF_A_BUILD
from .names import app_port, is_address, is_hostname, second_port
from .plan_common import text, with_process
from .plan_listens import PROXY_PORTS
from .plan_pgbouncer import PGBOUNCER_PORT
from .plan_postgresql import POSTGRESQL_PORT
from .problems import Path, Problem, listing, meant
from .redis_fields import check_redis, instances_of
from .redis_fields import port_of as redis_port_of
from .site import PERIODS, Mount, covers, split_domain
from .topology import GROUPS, LOOPBACK

Variables = Mapping[str, Any]
Groups = Mapping[str, Sequence[str]]

# Servers that take their address from the command line only, unless a configuration file says otherwise.
SERVERS = {"uvicorn", "gunicorn", "hypercorn", "daphne", "waitress-serve"}
#: What only an app on a domain can have.
SITE_KEYS = (
    "rate_limit",
    "rate_limits",
    "headers",
    "request_headers",
    "basic_auth",
    "allow",
    "maintenance",
    "cors",
    "locations",
)
CONFIGURED = {"-c", "--config", "--reload-config"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entries(value: Any) -> list[tuple[int, str]]:
    values = [value] if isinstance(value, str) else value
    return [(i, v) for i, v in enumerate(values) if isinstance(v, str)] if isinstance(values, list) else []


def mistyped_groups(groups: Groups) -> dict[str, str]:
    """Groups that are empty because their hosts are in one with a name much like theirs."""
    return {
        guess: name
        for name in groups
        if name not in GROUPS and (guess := meant(name, GROUPS, 0.75)) and not groups.get(guess)
    }


def apps_of(variables: Variables) -> dict[str, Mapping[str, Any]]:
    """The apps as far as they are dictionaries."""
    return {str(name): app for name, app in _mapping(variables.get("apps")).items() if isinstance(app, Mapping)}


def port_of(name: str, app: Mapping[str, Any]) -> int:
    """The port of an app, given or derived."""
    port = app.get("port")
    return port if isinstance(port, int) and not isinstance(port, bool) else app_port(name)


def ports_of(name: str, app: Mapping[str, Any]) -> list[int]:
    """All ports of an app: behind a proxy a new release starts beside the old one, on a port of its own."""
    port = port_of(name, app)
    return [port, second_port(port)] if app.get("domains") else [port]


def check_globals(variables: Variables) -> Iterator[Problem]:
    """The globals against each other."""
    apps = apps_of(variables)
    certified = [
        f"apps.{name}.domains"
        for name, app in apps.items()
        if any(is_hostname(split_domain(domain)[0]) for _, domain in _entries(app.get("domains")))
    ]
    if certified and "acme_email" not in variables:
        wanted = f"your email address: certificates are needed for {', '.join(certified)}"
        yield Problem(("acme_email",), "nothing", wanted)
    if variables.get("acme_staging") is True and "acme_directory" in variables:
        wanted = "one of the two: Let's Encrypt's test service, or the directory that `acme_directory` names"
        yield Problem(("acme_staging",), "true, beside `acme_directory`", wanted)
    admins = variables.get("admins")
    named: dict[str, int] = {}
    for index, admin in enumerate(admins if isinstance(admins, list) else []):
        name = _mapping(admin).get("name")
        if not isinstance(name, str):
            continue
        if name in named:
            yield Problem(("admins", index, "name"), f"{name}, whom admins[{named[name]}] names too", "each admin once")
        if name in apps:
            yield Problem(("admins", index, "name"), f"{name}, the name of an app", "another name: an app has no login")
        named.setdefault(name, index)
    backup = _mapping(variables.get("backup"))
    keep = backup.get("keep")
    if isinstance(keep, Mapping) and not any(isinstance(n, int) and n > 0 for n in keep.values()):
        yield Problem(("backup", "keep"), "a policy that keeps no backup", "one period at least, such as {daily: 30}")
    for key in ("full", "differential"):
        if key in backup and "recovery_days" not in backup:
            wanted = "`recovery_days` beside it, such as 7, which turns these copies on"
            yield Problem(("backup", key), "a time for copies that are not made", wanted)
    store = _mapping(backup.get("s3"))
    endpoint, bucket = store.get("endpoint"), store.get("bucket")
    if isinstance(endpoint, str) and isinstance(bucket, str) and bucket:
        server = urlsplit(endpoint).hostname or ""
        if server.startswith(f"{bucket}."):
            wanted = f"the store's own, without the bucket: https://{server.removeprefix(bucket + '.')}"
            yield Problem(("backup", "s3", "endpoint"), f"a URL with the bucket {bucket} in its name", wanted)


def check_apps(variables: Variables, groups: Groups) -> Iterator[Problem]:
    """Each app in itself, all of them against each other, and against the groups."""
    apps = apps_of(variables)
    yield from _domains(apps)
    yield from _neighbours(apps)
    yield from _wildcards(apps, variables)
    yield from _ports(apps, variables)
    yield from _rules(apps, variables)
    yield from check_databases(apps, variables)
    yield from check_redis(variables, apps)
    for name, app in apps.items():
        path: Path = ("apps", name)
        yield from _site(app, path)
        yield from _limits(app, path)
        yield from _source(app, path)
        yield from _built(app, path)
        yield from _sql(app, path)
        yield from _groups(app, path, groups)
        if app.get("type") in CODE_TYPES:
            yield from _process(name, app, path, groups)
        if app.get("type") == "container":
            yield from check_container(name, app, path, variables)
        if app.get("type") == "compose":
            yield from check_compose(name, app, path, variables)


def _domains(apps: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, app in apps.items():
        for key in ("domains", "redirect_domains"):
            for index, domain in _entries(app.get(key)):
                host, path = split_domain(domain)
                canonical = _canonical(host) + path
                if canonical in seen:
                    found = f"{domain}, which {seen[canonical]} has, too"
                    one = "path of a domain" if path else "domain"
                    yield Problem(("apps", name, key, index), found, f"each {one} once, at the app that answers on it")
                seen.setdefault(canonical, f"apps.{name}.{key}[{index}]")


def _canonical(host: str) -> str:
    return host.lower().rstrip(".")


def _mounts(app: Mapping[str, Any]) -> list[tuple[int, Mount]]:
    """Where an app is, with the index in `domains`: at paths, or, with an empty one, on a domain of its own."""
    entries = [(index, *split_domain(entry)) for index, entry in _entries(app.get("domains"))]
    return [
        (index, Mount(_canonical(host), path.rstrip("/"), bool(path) and app.get("strip") is True, 0))
        for index, host, path in entries
    ]


def _own_paths(app: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """The paths of itself that an app names, and where."""
    health = app.get("health")
    path = health.get("path") if isinstance(health, Mapping) else health
    if isinstance(path, str):
        yield ("health",), path
    for key in _mapping(app.get("rate_limits")):
        if isinstance(key, str):
            yield ("rate_limits", key), key
    for steps, several in (
        (("websocket",), app.get("websocket")),
        (("basic_auth", "paths"), _mapping(app.get("basic_auth")).get("paths")),
    ):
        for index, path in _entries(several):
            yield steps if isinstance(several, str) else (*steps, index), path


def _neighbours(apps: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Apps on one domain: what one of them says of a path that another answers would never hold."""
    leads_away = {
        _canonical(domain): name for name, app in apps.items() for _, domain in _entries(app.get("redirect_domains"))
    }
    places = [(name, index, mount) for name, app in apps.items() for index, mount in _mounts(app)]
    for guest, index, mount in places:
        if not mount.path:
            continue
        where: Path = ("apps", guest, "domains", index)
        if mount.domain in leads_away:
            found = f"a path on {mount.domain}, which apps.{leads_away[mount.domain]}.redirect_domains leads away"
            yield Problem(where, found, "a path on a domain that an app answers on, or on one that is nobody's")
        for owner, _index, above in places:
            nearer = above.path != mount.path and covers(above.path, mount.path)
            if owner == guest or above.domain != mount.domain or not nearer:
                continue
            locations = [key.rstrip("/") for key in _mapping(apps[owner].get("locations")) if isinstance(key, str)]
            if mount.path in locations:
                found = f"{mount.domain}{mount.path}, which apps.{owner}.locations has, too"
                yield Problem(where, found, "each path of a domain once, at the app that answers on it")
            for steps, path in _own_paths(apps[owner]):
                whole = above.within(path)
                if covers(mount.path, whole) and not any(covers(location, whole) for location in locations):
                    found = f"{path}, which apps.{guest} answers: it is at {mount.domain}{mount.path}"
                    yield Problem(("apps", owner, *steps), found, f"a path of this app, or the same at apps.{guest}")


def _wildcards(apps: Mapping[str, Mapping[str, Any]], variables: Variables) -> Iterator[Problem]:
    """What is for any name below another one, which only a record in DNS can prove."""
    for name, app in apps.items():
        for key in ("domains", "redirect_domains"):
            for index, domain in _entries(app.get(key)):
                path: Path = ("apps", name, key, index)
                if not domain.startswith("*."):
                    continue
                if "acme_dns" not in variables:
                    wanted = "`acme_dns` beside `apps`, or each name by itself: over HTTP no wildcard can be proven"
                    yield Problem(path, f"{domain}, a wildcard", wanted)
                elif key == "domains" and index == 0:
                    wanted = f"a name first, such as {domain[2:]}: others lead to it, and deploys try the app by it"
                    yield Problem(path, f"{domain}, a wildcard", wanted)


def _ports(apps: Mapping[str, Mapping[str, Any]], variables: Variables) -> Iterator[Problem]:
    ssh = variables.get("hardening_ssh_port", 22)
    ssh = int(ssh) if str(ssh).isdigit() else 22
    taken = {80: "HTTP", 443: "HTTPS", POSTGRESQL_PORT: "PostgreSQL"}
    if any(_mapping(app.get("database")).get("pool") for app in apps.values()):
        given = str(variables.get("pgbouncer_port", PGBOUNCER_PORT))
        pooler = int(given) if given.isdigit() else PGBOUNCER_PORT
        if pooler in taken:
            yield Problem(("pgbouncer_port",), f"{pooler}, the port of {taken[pooler]}", "another port, such as 6432")
        taken.setdefault(pooler, "PgBouncer")
    proxy = str(variables.get("proxy", "nginx"))
    for name, port in PROXY_PORTS.get(proxy, {}).items():
        given = str(variables.get(f"{name.replace('-', '_')}_port", port))
        part = name.removeprefix(f"{proxy}-")
        taken[int(given) if given.isdigit() else port] = f"{'Traefik' if proxy == 'traefik' else proxy} ({part})"
    if ssh in taken:
        wanted = "a port that nothing else has, such as 22 or 2222"
        yield Problem(("hardening_ssh_port",), f"{ssh}, the port of {taken[ssh]}", wanted)
    taken[ssh] = "SSH"
    for name, instance in instances_of(variables).items():
        port = redis_port_of(name, instance)
        if port in taken:
            derived = "" if "port" in instance else ", which follows from its name"
            wanted = f"another port, such as `port: {_free(port, 1, taken)}`"
            yield Problem(("redis", name, "port"), f"{port}{derived}; {taken[port]} has that port", wanted)
        taken.setdefault(port, f"redis.{name}")
    for name, app in with_process(apps).items():
        ports = ports_of(name, app)
        if ports[0] < 1024:
            continue
        clash = next((port for port in ports if port in taken), 0)
        if clash:
            derived = "" if "port" in app else ", which follows from the app's name"
            which = "that port"
            if clash != ports[0]:
                which = f"port {clash}, which is for the next release beside the one that serves"
            found = f"{ports[0]}{derived}; {taken[clash]} has {which}"
            yield Problem(
                ("apps", name, "port"), found, f"another port, such as `port: {_free(clash, len(ports), taken)}`"
            )
        for port in ports:
            taken.setdefault(port, f"apps.{name}")


def _rules(apps: Mapping[str, Mapping[str, Any]], variables: Variables) -> Iterator[Problem]:
    """The operator's own ports against those that are declared elsewhere."""
    ssh = str(variables.get("hardening_ssh_port", 22))
    taken = {ssh: ("SSH", "`hardening_ssh_port`, and `hardening_ssh_sources` for whom")}
    for name, app in with_process(apps).items():
        instead = "no rule: a proxy leads to the app, and the firewall lets that in by itself"
        for port in ports_of(name, app):
            taken.setdefault(str(port), (f"apps.{name}", instead))
    rules = variables.get("hardening_firewall_rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        number = str(_mapping(rule).get("port", ""))
        if number in taken and str(_mapping(rule).get("protocol", "tcp")) == "tcp":
            owner, instead = taken[number]
            yield Problem(("hardening_firewall_rules", index, "port"), f"{number}; {owner} has that port", instead)


def _free(port: int, count: int, taken: Mapping[int, str]) -> int:
    free = range(max(port, 20000), 32767)
    return next(first for first in free if not {first + n for n in range(count)} & set(taken))


def _site(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    domains = [domain for _, domain in _entries(app.get("domains"))]
    if app.get("redirect_domains") and not app.get("domains"):
        yield Problem((*path, "redirect_domains"), "domains that lead nowhere", "`domains` beside it, to lead to")
    addresses = [domain for domain in domains if is_address(domain)]
    if addresses and len(addresses) < len(domains):
        wanted = "either domains or addresses: an address has a self-signed certificate of its own"
        yield Problem((*path, "domains"), f"the address {addresses[0]} beside a domain", wanted)
    elif addresses and app.get("redirect_domains"):
        wanted = "no such key: with an address there is no certificate for other names"
        yield Problem((*path, "redirect_domains"), f"domains that lead to the address {addresses[0]}", wanted)
    at = [domain for domain in domains if split_domain(domain)[1]]
    if not at:
        for key in ("strip", "priority"):
            if key in app:
                wanted = "a path in `domains`, such as [example.com/api], or no such key"
                yield Problem((*path, key), "a key for an app at a path, but `domains` has none", wanted)
    elif "locations" in app:
        wanted = "each of them an app of its own: `type: route` with `domains: [example.com/path]`"
        yield Problem((*path, "locations"), f"paths of an app that is itself at a path ({at[0]})", wanted)
    if at and len(at) == len(domains) and app.get("redirect_domains"):
        wanted = "a domain of its own in `domains`, to lead to, or no such key"
        yield Problem((*path, "redirect_domains"), f"domains that lead to a path ({at[0]})", wanted)
    if app.get("type") == "static" and "request_headers" in app:
        yield Problem((*path, "request_headers"), "headers for an app, but files alone answer", "no such key")
    yield from _paths(app, path)


def _paths(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """nginx refuses a path that it is told of twice."""
    served = {"/": "the site itself"}
    locations: list[tuple[Path, str]] = [
        (("locations", key), key) for key in _mapping(app.get("locations")) if isinstance(key, str)
    ]
    sockets = app.get("websocket")
    several = not isinstance(sockets, str)
    websockets: list[tuple[Path, str]] = [
        (("websocket", index) if several else ("websocket",), socket) for index, socket in _entries(sockets)
    ]
    for steps, location in locations + websockets:
        if location in served:
            found = f"{location}, which {served[location]} serves"
            yield Problem((*path, *steps), found, "each path once in a site")
        served.setdefault(location, f"`{steps[0]}`")


def _limits(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """A limit that says no number."""
    limits: list[tuple[Path, Any]] = [(("rate_limit",), app.get("rate_limit"))]
    limits += [(("rate_limits", str(key)), limit) for key, limit in _mapping(app.get("rate_limits")).items()]
    for steps, limit in limits:
        if isinstance(limit, Mapping) and not set(limit) & set(PERIODS):
            yield Problem(
                (*path, *steps), "a limit without a number", f"one of {listing(PERIODS)}, such as per_minute: 60"
            )
    # Where domains are needed anyway, their absence is said there.
    if not app.get("domains") and app.get("type") not in ("static", "route"):
        for key in SITE_KEYS:
            if key in app:
                yield Problem(
                    (*path, key), "a setting of a site, but no `domains`", "`domains` beside it, or no such key"
                )


def _source(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Code comes from a repository, or files from an archive that is known by its checksum."""
    source = app.get("source")
    if not isinstance(source, Mapping):
        return
    path = (*path, "source")
    yield from _over_ssh(source, path)
    if "archive" not in source:
        # A mistyped key was reported already.
        if "git" not in source and not any(meant(str(key), ("git", "archive")) for key in source):
            yield Problem((*path, "git"), "nothing", "the repository's address, or `archive` with its `checksum`")
        if "checksum" in source:
            yield Problem((*path, "checksum"), "a checksum of nothing", "`archive` beside it; a commit needs none")
        return
    if "checksum" not in source:
        wanted = "sha256:… as `sha256sum` prints it: what comes over the net is used only when it is what you meant"
        yield Problem((*path, "checksum"), "nothing", wanted)
    for key, wanted in (("git", "one of the two"), ("version", "no such key: an archive is its own version")):
        if key in source:
            yield Problem((*path, key), f"`{key}` beside `archive`", wanted)


def _over_ssh(source: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Over ssh a repository is read with a key of its own, from a server that is known."""
    address = source.get("git")
    host, port = app_deploy_key.server_of(address) if isinstance(address, str) else ("", 0)
    if host and "deploy_key" not in source:
        yield Problem((*path, "deploy_key"), "nothing, and an address over ssh", f"{DEPLOY_KEY}; or an https address")
    if host and "host_key" not in source and host not in app_deploy_key.WELL_KNOWN:
        wanted = f"the key by which {host} is known: {app_deploy_key.how_to_get_host_key(host, port)}"
        yield Problem((*path, "host_key"), "nothing, and an address over ssh", wanted)
    for key in () if host or not isinstance(address, str) else ("deploy_key", "host_key"):
        if key in source:
            wanted = "git@host:path.git in `git`, or no such key: it is for ssh"
            yield Problem((*path, key), f"`{key}` beside an address that is not over ssh", wanted)


def _built(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """A site that is built is shown from where the build puts it."""
    if app.get("type") != "static":
        return
    if "build" in app and "publish" not in app:
        wanted = "the folder that the build puts the site into, such as dist; the code itself is not shown"
        yield Problem((*path, "publish"), "nothing", wanted)
    if "build" in app:
        return
    hooks = _mapping(app.get("hooks"))
    # The environment is that of its hooks, too.
    keys = [(key,) for key in ("publish", "env") if key in app and not (key == "env" and hooks)]
    for key in [*keys, *(("hooks", moment) for moment in OF_A_BUILD if moment in hooks)]:
        wanted = f"`build` beside it, or no `{key[-1]}`: the files are shown as they are in the repository"
        yield Problem((*path, *key), "a key for a site that is built", wanted)


def _groups(app: Mapping[str, Any], path: Path, groups: Groups) -> Iterator[Problem]:
    mistyped = mistyped_groups(groups)
    if app.get("domains") and not groups.get("proxy") and "proxy" not in mistyped:
        yield Problem(
            (*path, "domains"), "domains, but no host in group `proxy`", "the droplet that answers, in that group"
        )
    if app.get("type") not in PROCESS_TYPES:
        return
    if not groups.get("app") and "app" not in mistyped:
        yield Problem(
            path, f"a {app['type']} app, but no host in group `app`", "the droplet that runs it, in that group"
        )
    servers = list(groups.get("database", ()))
    if "database" in app and not servers and "database" not in mistyped:
        found = "a database, but no host in group `database`"
        yield Problem((*path, "database"), found, "the droplet that holds it, in that group")


def _sql(app: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """SQL needs a database to be applied to."""
    if "sql" in _mapping(app.get("migrate")) and not {"database", "DATABASE_URL"} & {*app, *_mapping(app.get("env"))}:
        wanted = "`database: {}` beside it, or DATABASE_URL in `env`"
        yield Problem((*path, "migrate", "sql"), "SQL migrations, but no database", wanted)


def _process(name: str, app: Mapping[str, Any], path: Path, groups: Groups) -> Iterator[Problem]:
    environment = _mapping(app.get("env"))
    port = port_of(name, app)
    if "PORT" in environment and text(environment["PORT"]) not in (str(port), ""):
        wanted = "`port` beside `env`, and no PORT in it: the proxy must know the port, too"
        yield Problem((*path, "env", "PORT"), "a port of its own", wanted)
    if not app.get("domains"):
        return
    if "health" not in app:
        wanted = "the path that answers when the app is well, such as /health; each deploy waits for it"
        yield Problem((*path, "health"), "nothing", wanted)
    command = app.get("command")
    if not isinstance(command, str):
        return
    try:
        words = shlex.split(command)
    except ValueError:
        return
    server = bool({word.rsplit("/", 1)[-1] for word in words} & SERVERS) and not CONFIGURED & set(words)
    if not re.search(r"\$PORT\b|\$\{PORT\}", command):
        literal = re.search(r"(?:--port[= ]|-p |:)(\d{2,5})\b", command)
        if literal or server:
            found = f"a command that listens on port {literal[1]}" if literal else "a command that is not told its port"
            wanted = (
                f"$PORT where the port belongs: {port} and {second_port(port)} by turns, so that no request is lost"
            )
            yield Problem((*path, "command"), found, wanted)
    elsewhere = [proxy for proxy in groups.get("proxy", ()) if set(groups.get("app", ())) - {proxy}]
    if elsewhere:
        loopback = re.search(r"\b127\.0\.0\.1\b|\blocalhost\b", command)
        if loopback or (server and not re.search(r"\$HOST\b|\$\{HOST\}|0\.0\.0\.0|\[?::\]?", command)):
            found = f"a command that listens on {loopback[0] if loopback else LOOPBACK} only"
            wanted = f"$HOST where the address belongs; {elsewhere[0]} must reach the app from another machine"
            yield Problem((*path, "command"), found, wanted)
