"""What follows from `apps` and the topology, for one machine and for several."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import app_port, is_hostname
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

GIT = {"git": "https://git.malar.in/malar.git"}
API: dict[str, Any] = {
    "type": "python",
    "source": {**GIT, "version": "v1", "path": "backend/"},
    "command": "uvicorn app.main:app --host $HOST --port $PORT",
    "migrate": "alembic upgrade head",
    "domains": ["api.malar.in"],
    "health": "/health",
    "websocket": "/ws",
    "database": {"extensions": ["uuid-ossp"]},
    "packages": ["redis-server"],
    "env": {"DEBUG": False, "POOL": 20, "SECRET_KEY": "x"},
}
WEB: dict[str, Any] = {
    "type": "static",
    "source": {**GIT, "path": "frontend/dist"},
    "domains": ["malar.in"],
    "redirect_domains": ["www.malar.in"],
    "locations": {"/api": "https://api.malar.in"},
    "spa": True,
}
APPS = {"malar-api": API, "malar-web": WEB}
PORT = app_port("malar-api")
ONE = Topology(("web1",), ("web1",), ("web1",))
THREE = Topology(
    ("web1",), ("app1",), ("db1",), {"web1": "10.0.0.1", "app1": "10.0.0.2", "db1": "10.0.0.3"}
)  # fmt: skip
GROWN = Topology(
    ("web1", "web2"),
    ("app1", "web2"),
    ("db1",),
    {"web1": "10.0.0.1", "web2": "10.0.0.9", "app1": "10.0.0.2", "db1": "fd00::3"},
)
PASSWORDS = {"malar_api": "p@ss/w:rd"}


def site(apps: dict[str, Any], topology: Topology, host: str, name: str) -> dict[str, Any]:
    return next(row for row in plan(apps, topology, host)["nginx_sites"] if row["name"] == name)


def app(topology: Topology, host: str, name: str = "malar-api", **changes: Any) -> dict[str, Any]:
    apps = {**APPS, name: {**APPS[name], **changes}}
    return next(row for row in plan_apps(apps, topology, host, PASSWORDS) if row["name"] == name)


def test_one_machine_talks_over_the_loopback_and_opens_the_web_ports_alone() -> None:
    planned = plan(APPS, ONE, "web1")
    assert site(APPS, ONE, "web1", "malar-api")["proxy"]["upstreams"] == [f"127.0.0.1:{PORT}"]
    assert planned["postgresql_listen_addresses"] == ["localhost"]
    assert planned["postgresql_clients"] == [
        {"database": "malar_api", "role": "malar_api", "addresses": ["127.0.0.1/32"]}
    ]
    assert [(rule["port"], rule.get("sources")) for rule in planned["hardening_contributed_firewall_rules"]] == [
        (80, None),
        (443, None),
    ]
    assert app(ONE, "web1")["address"] == "127.0.0.1"


def test_what_traefik_needs_beside_the_web_is_for_the_host_alone() -> None:
    planned = plan(APPS, ONE, "web1", "traefik")
    inside = [(row["name"], row["port"]) for row in planned["listens"] if row["addresses"] == ["127.0.0.1"]]
    assert inside == [("traefik-metrics", 8082), ("traefik-files", 8081), ("malar-api", PORT), ("malar-api", PORT + 1)]
    nginx = plan(APPS, ONE, "web1")
    assert planned["hardening_contributed_firewall_rules"] == nginx["hardening_contributed_firewall_rules"]
    assert planned["nginx_sites"] == nginx["nginx_sites"]


def test_http3_opens_its_port_of_udp_on_the_proxies_alone() -> None:
    web = plan(APPS, THREE, "web1", http3=True)["hardening_contributed_firewall_rules"]
    assert {"name": "http3", "port": 443, "protocol": "udp"} in web
    server = plan(APPS, THREE, "app1", http3=True)["hardening_contributed_firewall_rules"]
    assert "udp" not in [rule["protocol"] for rule in server]


def test_a_python_site_has_what_nginx_needs() -> None:
    assert site(APPS, ONE, "web1", "malar-api") == {
        "name": "malar-api",
        "domains": ["api.malar.in"],
        "redirect_domains": [],
        "certificate": "/etc/shipshape/tls/malar-api/fullchain.pem",
        "certificate_key": "/etc/shipshape/tls/malar-api/privkey.pem",
        "self_signed": False,
        "hsts": True,
        "locations": [],
        "health": "/health",
        "proxy": {
            "upstreams": [f"127.0.0.1:{PORT}"],
            "green": {"upstreams": [f"127.0.0.1:{PORT + 1}"], "flag": "/var/lib/shipshape/live/malar-api.green"},
            "websockets": ["/ws"],
            "timeout": 60,
            "max_body_size": "10m",
        },
    }


def test_a_static_site_is_served_from_its_release() -> None:
    planned = site(APPS, ONE, "web1", "malar-web")
    assert planned["static"] == {"root": "/srv/malar-web/current/public", "spa": True}
    assert planned["redirect_domains"] == ["www.malar.in"]
    assert planned["locations"] == [{"path": "/api", "upstream": "https://api.malar.in"}]
    assert "proxy" not in planned
    # Uploads may go through one of its locations.
    assert site({"w": {**WEB, "max_body_size": "50m"}}, ONE, "web1", "w")["static"]["max_body_size"] == "50m"


def test_an_app_at_a_path_has_no_certificate_but_its_domain_has_one() -> None:
    """Whether the domain is another app's or nobody's; and a deploy asks it where a visitor would."""
    paths = ["malar.in/api", "Other.in/a/b", "other.in/c"]
    apps = {"malar-web": WEB, "malar-api": {**API, "domains": paths, "strip": True, "priority": 20}}
    planned = plan(apps, ONE, "web1")
    at = site(apps, ONE, "web1", "malar-api")
    assert "certificate" not in at and (at["domains"], at["strip"], at["priority"]) == (paths, True, 20)
    assert [row["name"] for row in planned["nginx_sites"]] == ["malar-web", "malar-api", "other.in"]
    assert planned["nginx_sites"][2] == {
        "name": "other.in",
        "domains": ["other.in"],
        "redirect_domains": [],
        "certificate": "/etc/shipshape/tls/other.in/fullchain.pem",
        "certificate_key": "/etc/shipshape/tls/other.in/privkey.pem",
        "self_signed": False,
        "hsts": True,
        "empty": True,
    }
    assert planned["certbot_certificates"] == [
        {"name": "malar-web", "domains": ["malar.in", "www.malar.in"]},
        {"name": "other.in", "domains": ["other.in"]},
    ]


@pytest.mark.parametrize(
    ("domains", "strip", "health", "asked"),
    [
        (["malar.in/api"], True, "/health", "/api/health"),
        (["malar.in/api"], True, "/api/health", "/api/api/health"),
        (["malar.in/api"], False, "/health", "/api/health"),
        (["malar.in/api"], False, "/api/health", "/api/health"),
        (["api.malar.in", "malar.in/api"], True, "/health", None),
    ],
)
def test_a_deploy_asks_through_the_proxy_as_a_visitor_would(
    domains: list[str], strip: bool, health: str, asked: str | None
) -> None:
    row = app(ONE, "web1", domains=domains, strip=strip, health=health)
    assert (row["health"], row.get("domain_health"), row["domain"]) == (health, asked, domains[0].partition("/")[0])


def test_a_rate_limit_leaves_room_for_a_page_and_its_assets() -> None:
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 1000}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"] == {"per_minute": 1000, "burst": 100}
    # But where few are allowed, no more than those: five a minute are not twenty at once.
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 5}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"] == {"per_minute": 5, "burst": 4}
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 5, "burst": 2}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"]["burst"] == 2


def test_limits_stand_in_the_numbers_of_the_plans() -> None:
    app = {
        **API,
        "rate_limit": {"per_minute": 1000, "per_hour": 10000},
        "rate_limits": {"/token": {"per_minute": 5}, "/functions": {"per_minute": 200, "burst": 0}},
    }
    planned = site({"malar-api": app}, ONE, "web1", "malar-api")
    assert planned["rate_limit"] == {"per_minute": 1000, "per_hour": 10000, "burst": 100}
    assert planned["rate_limits"] == {
        "/token": {"per_minute": 5, "burst": 4},
        "/functions": {"per_minute": 200, "burst": 0},
    }


def test_who_may_come_and_what_a_site_says_is_handed_on() -> None:
    users = {"ops": "correct horse battery staple"}
    app = {
        **API,
        "headers": {"Content-Security-Policy": "default-src 'self'", "X-Robots-Tag": ""},
        "basic_auth": {"users": users, "paths": "/admin"},
        "allow": "198.51.100.0/24",
        "maintenance": {"message": "Back at 18:00."},
    }
    planned = site({"malar-api": app}, ONE, "web1", "malar-api")
    assert planned["headers"] == {"Content-Security-Policy": "default-src 'self'", "X-Robots-Tag": ""}
    assert planned["basic_auth"] == {"users": users, "paths": ["/admin"]}
    assert (planned["allow"], planned["maintenance"]) == (["198.51.100.0/24"], {"message": "Back at 18:00."})
    web = {**WEB, "maintenance": True, "basic_auth": {"users": users}}
    planned = site({"malar-web": web}, ONE, "web1", "malar-web")
    assert (planned["maintenance"], planned["basic_auth"]["paths"]) == ({"message": ""}, [])
    assert "maintenance" not in site({"malar-web": {**WEB, "maintenance": False}}, ONE, "web1", "malar-web")
    assert "health" not in planned
    said = {"malar-api": {**API, "health": {"path": "/health", "body": "ok"}}}
    assert site(said, ONE, "web1", "malar-api")["health"] == "/health"


def test_certificates_cover_redirected_domains_and_skip_addresses() -> None:
    apps = {**APPS, "bare": {**WEB, "domains": ["164.92.130.7"], "redirect_domains": [], "locations": {}}}
    planned = plan(apps, ONE, "web1")
    assert planned["certbot_certificates"] == [
        {"name": "malar-api", "domains": ["api.malar.in"]},
        {"name": "malar-web", "domains": ["malar.in", "www.malar.in"]},
    ]
    bare = site(apps, ONE, "web1", "bare")
    assert (bare["self_signed"], bare["hsts"]) == (True, False)


def test_each_host_backs_up_what_it_alone_has() -> None:
    mine, state = "/etc/shipshape", "/var/lib/shipshape/malar-api"
    assert plan(APPS, ONE, "web1")["backup_paths"] == [mine, "/etc/letsencrypt", state]
    assert plan(APPS, THREE, "web1")["backup_paths"] == [mine, "/etc/letsencrypt"]
    assert plan(APPS, THREE, "app1")["backup_paths"] == [mine, state]
    assert plan(APPS, THREE, "db1")["backup_paths"] == [mine]


def test_three_machines_use_private_addresses_and_open_ports_to_each_other_alone() -> None:
    web, server, database = (plan(APPS, THREE, host) for host in ("web1", "app1", "db1"))
    assert site(APPS, THREE, "web1", "malar-api")["proxy"]["upstreams"] == [f"10.0.0.2:{PORT}"]
    assert app(THREE, "app1")["address"] == app(THREE, "app1")["env"]["HOST"] == "10.0.0.2"
    assert server["hardening_contributed_firewall_rules"] == [
        {"name": "malar-api", "port": port, "protocol": "tcp", "sources": ["10.0.0.1/32"]} for port in (PORT, PORT + 1)
    ]
    assert database["hardening_contributed_firewall_rules"] == [
        {"name": "postgresql", "port": 5432, "protocol": "tcp", "sources": ["10.0.0.2/32"]}
    ]
    assert database["postgresql_listen_addresses"] == ["localhost", "10.0.0.3"]
    assert database["postgresql_clients"][0]["addresses"] == ["10.0.0.2/32"]
    assert [rule["port"] for rule in web["hardening_contributed_firewall_rules"]] == [80, 443]
    assert (web["postgresql_databases"], server["nginx_sites"], database["nginx_sites"]) == ([], [], [])


def test_several_app_hosts_are_several_upstreams_and_each_listens_where_every_proxy_finds_it() -> None:
    for proxy in GROWN.proxy:
        upstreams = site(APPS, GROWN, proxy, "malar-api")["proxy"]["upstreams"]
        assert upstreams == [f"{app(GROWN, host)['address']}:{PORT}" for host in GROWN.app]
    rules = plan(APPS, GROWN, "web2")["hardening_contributed_firewall_rules"]
    assert [rule.get("sources") for rule in rules if rule["name"] == "malar-api"] == [["10.0.0.1/32"]] * 2


def test_each_service_declares_its_addresses_and_sources_and_the_firewall_follows() -> None:
    web, server, database = (plan(APPS, THREE, host)["listens"] for host in ("web1", "app1", "db1"))
    assert [(row["port"], row["addresses"], row["sources"]) for row in web] == [
        (80, ["*"], []),
        (443, ["*"], []),
        (8082, ["127.0.0.1"], []),
    ]
    assert [(row["port"], row["addresses"], row["sources"]) for row in server] == [
        (PORT, ["10.0.0.2"], ["10.0.0.1/32"]),
        (PORT + 1, ["10.0.0.2"], ["10.0.0.1/32"]),
    ]
    assert [(row["name"], row["addresses"], row["sources"]) for row in database] == [
        ("postgresql", ["localhost", "10.0.0.3"], ["10.0.0.2/32"])
    ]
    inside = [row["port"] for row in plan(APPS, ONE, "web1")["listens"] if row["addresses"] != ["*"]]
    assert inside == [8082, PORT, PORT + 1, 5432]


def test_an_ipv6_database_is_reached_and_opened_as_such() -> None:
    assert "@[fd00::3]:5432/" in app(GROWN, "app1")["env"]["DATABASE_URL"]
    assert plan(APPS, GROWN, "db1")["postgresql_listen_addresses"] == ["localhost", "fd00::3"]


def test_one_host_migrates() -> None:
    assert app(GROWN, "app1")["migrate"] == "alembic upgrade head"
    assert app(GROWN, "web2")["migrate"] == ""


def test_what_may_run_once_runs_on_one_host_and_the_rest_on_all() -> None:
    said: dict[str, Any] = {
        "processes": {"worker": {"command": "celery worker", "count": 2}, "beat": {"command": "beat", "once": True}},
        "cron": {"cleanup": {"schedule": "0 3 * * *", "command": "clean"}},
        "seed": "seed",
        "hooks": {"before_start": "warm", "after_migrate": "note", "after_switch": "tell"},
    }
    first, second = app(GROWN, "app1", **said), app(GROWN, "web2", **said)
    assert [process["name"] for process in first["processes"]] == ["worker", "beat"]
    assert second["processes"] == [{"name": "worker", "command": "celery worker", "count": 2}]
    assert first["cron"] == [{"name": "cleanup", "schedule": "0 3 * * *", "command": "clean"}] and "cron" not in second
    assert first["seed"] == "seed" and "seed" not in second
    assert first["hooks"] == said["hooks"] and second["hooks"] == {"before_start": "warm"}
    site = {"build": "make", "publish": "out", "hooks": {"after_build": "check", "after_switch": "purge"}}
    first, second = (app(GROWN, host, "malar-web", **site) for host in GROWN.proxy)
    assert first["hooks"] == site["hooks"] and second["hooks"] == {"after_build": "check"}


def test_a_process_and_a_health_path_can_be_said_in_one_word_or_in_full() -> None:
    assert app(ONE, "web1", processes={"worker": "celery"})["processes"] == [{"name": "worker", "command": "celery"}]
    said = app(ONE, "web1", health={"path": "/up", "status": 204, "body": "ok", "start_period": 90})
    keys = ("health", "health_status", "health_body", "health_timeout")
    assert [said[key] for key in keys] == ["/up", 204, "ok", 90]


def test_an_app_of_another_language_is_planned_as_a_python_app_is() -> None:
    said = app(ONE, "web1", type="command", command="node server.js", build="npm ci")
    assert (said["type"], said["build"], said["second_port"]) == ("command", "npm ci", PORT + 1)
    apps = {"malar-api": {**API, "type": "command"}}
    assert plan(apps, ONE, "web1")["backup_paths"] == plan({"malar-api": API}, ONE, "web1")["backup_paths"]
    assert plan(apps, THREE, "app1")["listens"] == plan({"malar-api": API}, THREE, "app1")["listens"]


def test_a_site_that_is_built_is_told_its_environment_and_one_that_is_not_has_none() -> None:
    built = {"build": "npm run build", "publish": "dist", "env": {"MODE": True}, "hooks": {"before_build": "npm ci"}}
    said = app(ONE, "web1", "malar-web", **built)
    assert {key: said[key] for key in built} == {**built, "env": {"MODE": "true"}}
    assert not {"env", "build", "hooks"} & set(app(ONE, "web1", "malar-web"))


def test_an_app_without_domains_has_no_site_and_stays_on_the_loopback() -> None:
    apps = {"worker": {"type": "python", "source": GIT, "command": "celery worker"}}
    assert plan(apps, THREE, "web1")["nginx_sites"] == []
    assert plan(apps, THREE, "app1")["hardening_contributed_firewall_rules"] == []
    (worker,) = plan_apps(apps, THREE, "app1")
    assert "second_port" not in worker
    assert worker["env"] == {"HOST": "127.0.0.1", "PORT": str(app_port("worker"))}
    assert (worker["health"], worker["migrate"], worker["packages"]) == ("", "", [])


def test_apps_are_deployed_where_they_run_and_sites_where_they_are_served() -> None:
    assert [row["name"] for row in plan_apps(APPS, THREE, "web1")] == ["malar-web"]
    assert [row["name"] for row in plan_apps(APPS, THREE, "app1")] == ["malar-api"]
    assert plan_apps(APPS, THREE, "db1") == []
    assert [row["name"] for row in plan_apps(APPS, ONE, "web1")] == ["malar-api", "malar-web"]


def test_an_app_has_what_the_role_needs() -> None:
    row = app(ONE, "web1")
    env = row.pop("env")
    assert row == {
        "name": "malar-api",
        "type": "python",
        "user": "malar-api",
        "directory": "/srv/malar-api",
        "source": {"git": "https://git.malar.in/malar.git", "version": "v1", "path": "backend"},
        "packages": ["redis-server"],
        "keep_releases": 5,
        "command": "uvicorn app.main:app --host $HOST --port $PORT",
        "migrate": "alembic upgrade head",
        "health": "/health",
        "address": "127.0.0.1",
        "port": PORT,
        "second_port": PORT + 1,
        "domain": "api.malar.in",
    }
    assert env == {
        "HOST": "127.0.0.1",
        "PORT": str(PORT),
        "DATABASE_URL": "postgresql://malar_api:p%40ss%2Fw%3Ard@127.0.0.1:5432/malar_api",
        "DEBUG": "false",
        "POOL": "20",
        "SECRET_KEY": "x",
    }


def test_the_users_environment_comes_last() -> None:
    mine = "postgresql+asyncpg://u:p@elsewhere/d"
    assert app(ONE, "web1", env={"DATABASE_URL": mine})["env"]["DATABASE_URL"] == mine


def test_a_password_in_the_inventory_needs_no_other() -> None:
    database = {"name": "ledger", "password": "s3cret"}
    apps = {"malar-api": {**API, "database": database}}
    (row,) = plan_apps(apps, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://ledger:s3cret@127.0.0.1:5432/ledger"
    planned = plan(apps, ONE, "web1")
    assert planned["postgresql_roles"] == [{"name": "ledger", "password": "s3cret"}]
    assert planned["database_logins"] == []


def test_two_apps_in_one_database_have_a_role_and_schemas_each() -> None:
    desk = {**API, "domains": ["desk.in"], "database": {"in": "malar_api", "extensions": ["vector"], "password": "p"}}
    first = {**API, "database": {"extensions": ["uuid-ossp"], "schemas": ["audit"], "read_only": True}}
    # In whichever order they stand.
    planned = plan({"desk": desk, "malar-api": first}, ONE, "web1")
    assert planned["postgresql_databases"] == [
        {
            "name": "malar_api",
            "owner": "malar_api",
            "extensions": ["uuid-ossp", "vector"],
            "schemas": [{"name": "audit", "owner": "malar_api"}, {"name": "desk", "owner": "desk"}],
            "readers": [{"role": "malar_api_read", "owner": "malar_api"}],
        }
    ]
    assert [role["name"] for role in planned["postgresql_roles"]] == ["malar_api", "malar_api_read", "desk"]
    assert [(row["database"], row["role"]) for row in planned["postgresql_clients"]] == [
        ("malar_api", "malar_api"),
        ("malar_api", "desk"),
    ]
    (row,) = plan_apps({"desk": desk}, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://desk:p@127.0.0.1:5432/malar_api"


def test_what_a_database_begins_with_and_its_partitions_go_to_the_role() -> None:
    database = {
        "load": "schema.sql",
        "partitions": {"logs": {"by": "at", "keep_months": 12}, "audit.all": {"by": "at"}},
    }
    apps = {"malar-api": {**API, "database": database}}
    (row,) = plan(apps, ONE, "web1")["postgresql_databases"]
    # A deploy makes them for tables that it brings, so each host has to know.
    assert plan(apps, THREE, "app1")["partitioned"] and not plan(APPS, THREE, "app1")["partitioned"]
    assert row["load"] == "schema.sql"
    assert row["partitions"] == [
        {"table": "logs", "role": "malar_api", "by": "at", "ahead": 2, "keep_months": 12},
        {"table": "audit.all", "role": "malar_api", "by": "at", "ahead": 2},
    ]


def test_a_role_has_its_limit_and_its_reader_the_password_that_is_given() -> None:
    database = {"name": "ledger", "connection_limit": 20, "read_only": {"password": "r"}}
    roles = plan({"malar-api": {**API, "database": database}}, ONE, "web1")["postgresql_roles"]
    assert roles == [{"name": "ledger", "connection_limit": 20}, {"name": "ledger_read", "password": "r"}]
    database = {"name": "ledger", "read_only": False}
    assert plan({"a": {**API, "database": database}}, ONE, "web1")["postgresql_roles"] == [{"name": "ledger"}]


def test_passwords_that_are_made_on_the_database_host_are_asked_for_by_the_app_hosts() -> None:
    login = {"role": "malar_api", "host": "db1", "path": "/etc/shipshape/postgresql/malar_api.password"}
    assert plan(APPS, THREE, "app1")["database_logins"] == [login]
    assert plan(APPS, THREE, "web1")["database_logins"] == []
    assert "password" not in plan(APPS, THREE, "db1")["postgresql_roles"][0]


def test_apps_need_the_hosts_of_their_database_of_redis_and_of_their_proxies_and_static_ones_need_none() -> None:
    apps = {"malar-api": {**API, "redis": "cache"}, "quiet": {**API, "domains": [], "database": None}, "malar-web": WEB}
    assert plan(apps, THREE, "app1")["needs"] == [
        {"host": "db1", "has": ["the database of malar-api", "Redis for malar-api"]},
        {"host": "web1", "has": ["the proxy of malar-api"]},
    ]
    assert [row["host"] for row in plan(APPS, GROWN, "web2")["needs"]] == ["db1", "web1"]
    for topology, host in ((THREE, "web1"), (THREE, "db1"), (ONE, "web1")):
        assert plan(apps, topology, host)["needs"] == []


def test_without_passwords_there_is_no_database_url_and_with_a_wrong_set_an_error() -> None:
    (row, _) = plan_apps(APPS, ONE, "web1", None)
    assert "DATABASE_URL" not in row["env"]
    with pytest.raises(PlanError, match="the password of database role malar_api was not read"):
        plan_apps(APPS, ONE, "web1", {"other": "x"})


def test_one_app_can_be_planned_alone_and_an_unknown_one_is_named() -> None:
    assert [row["name"] for row in plan_apps(APPS, ONE, "web1", only="malar-web")] == ["malar-web"]
    with pytest.raises(PlanError, match="no app 'malar-wep'; `apps` has: malar-api, malar-web"):
        plan_apps(APPS, ONE, "web1", only="malar-wep")


def test_apps_with_a_database_need_a_database_host() -> None:
    nowhere = Topology(("web1",), ("web1",), ())
    with pytest.raises(PlanError, match="group `database` has no host; put the droplet"):
        plan_apps(APPS, nowhere, "web1", PASSWORDS)
    assert plan({"malar-web": WEB}, nowhere, "web1")["postgresql_databases"] == []


def test_the_sites_are_planned_without_reading_the_environment() -> None:
    """Ansible templates what is read: whoever asks for sites must not need the vault."""

    class Locked(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            assert key != "env", "the environment was read"
            return super().get(key, default)

        __getitem__ = get

    assert plan({"malar-api": Locked(API)}, ONE, "web1")["nginx_sites"]


def test_ports_follow_from_names_and_stay_out_of_the_ephemeral_range() -> None:
    assert app_port("malar-api") == 22062
    ports = {app_port(f"app-{number}") for number in range(500)}
    assert len(ports) > 450
    assert all(20000 <= port < 30000 and port % 2 == 0 for port in ports)


@pytest.mark.parametrize("name", ["a.in", "x-1.malar.in", "xn--blte-1ra.in", "A.In", ".".join(["a" * 62] * 4) + ".a"])
def test_a_hostname_is_one(name: str) -> None:
    assert is_hostname(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "-a.in",
        "a-.in",
        "a..in",
        ".a.in",
        "a.in.",
        "a.1",
        "a_b.in",
        "a b.in",
        "ü.in",
        ".".join(["a" * 62] * 4) + ".ab",
    ],
)
def test_what_is_no_hostname_is_none(name: str) -> None:
    assert not is_hostname(name)


OCR: dict[str, Any] = {
    "type": "container",
    "image": "registry.malar.in/ocr:1.4",
    "registry": {"username": "fetcher", "password": "s3cret-of-mine"},
    "container_port": 8000,
    "arguments": "serve --workers 2",
    "migrate": "alembic upgrade head",
    "domains": ["ocr.malar.in"],
    "health": "/health",
    "database": {},
    "volumes": {"/data": "uploads"},
    "memory": "512M",
    "env": {"MODEL": "large"},
}


def container(topology: Topology, host: str, **changes: Any) -> dict[str, Any]:
    return dict(plan_apps({"ocr": {**OCR, **changes}}, topology, host, {"ocr": "p@ss/w:rd"})[0])


def test_a_container_is_planned_like_any_app_with_a_process() -> None:
    apps, port = {"ocr": OCR}, app_port("ocr")
    listens = [(row["port"], row["addresses"]) for row in plan(apps, ONE, "web1")["listens"] if row["name"] == "ocr"]
    assert listens == [(port, ["127.0.0.1"]), (port + 1, ["127.0.0.1"])]
    assert site(apps, ONE, "web1", "ocr")["proxy"]["upstreams"] == [f"127.0.0.1:{port}"]
    opened = plan(apps, THREE, "app1")["hardening_contributed_firewall_rules"]
    assert [(rule["port"], rule["sources"]) for rule in opened] == [(p, ["10.0.0.1/32"]) for p in (port, port + 1)]
    assert container(THREE, "app1")["address"] == "10.0.0.2"
    assert plan_apps(apps, THREE, "web1") == []


def test_a_container_hears_of_its_inner_port_whatever_colour_it_has() -> None:
    row = container(ONE, "web1")
    assert (row["env"]["HOST"], row["env"]["PORT"], row["container_port"]) == ("0.0.0.0", "8000", 8000)
    assert (row["port"], row["second_port"]) == (app_port("ocr"), app_port("ocr") + 1)
    assert "source" not in row and row["image"] == OCR["image"] and row["command"] == OCR["arguments"]
    assert row["registry"] == OCR["registry"]
    quiet = plan_apps({"job": {"type": "container", "image": "nginx:1"}}, ONE, "web1")[0]
    assert quiet["env"] == {} and "registry" not in quiet and "sockets" not in quiet


def test_a_container_reaches_a_database_on_its_own_host_by_the_socket_and_another_by_its_address() -> None:
    row = container(ONE, "web1")
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:p%40ss%2Fw%3Ard@/ocr?host=/var/run/postgresql"
    assert row["sockets"] == ["/var/run/postgresql"]
    row = container(THREE, "app1")
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:p%40ss%2Fw%3Ard@10.0.0.3:5432/ocr" and "sockets" not in row


COMPOSED: dict[str, Any] = {
    "type": "compose",
    "source": {"git": "https://git.in/board.git", "version": "v2"},
    "compose_file": "compose.yml",
    "service": "web",
    "container_port": 8000,
    "registry": {"server": "ghcr.io", "username": "u", "password": "p"},
    "domains": ["board.in"],
    "health": "/health",
    "database": {"password": "secret"},
    "env": {"DEBUG": False},
}


def test_a_compose_file_is_planned_like_any_app_from_a_checkout_whose_web_service_is_a_container() -> None:
    row = plan_apps({"board": COMPOSED}, ONE, "web1")[0]
    assert (row["service"], row["compose_file"], row["container_port"]) == ("web", ["compose.yml"], 8000)
    assert row["source"] == {"git": "https://git.in/board.git", "version": "v2", "path": "."}
    assert row["registry"]["server"] == "ghcr.io" and row["second_port"] == row["port"] + 1
    # The file itself says what its services find in their environment beside this.
    assert set(row["env"]) == {"DEBUG", "DATABASE_URL"} and row["sockets"] == ["/var/run/postgresql"]
    assert plan({"board": COMPOSED}, ONE, "web1")["backup_paths"] == [
        "/etc/shipshape",
        "/etc/letsencrypt",
        "/var/lib/shipshape/board",
    ]


def test_compose_is_installed_where_an_app_is_a_compose_file() -> None:
    assert plan({"board": COMPOSED}, ONE, "web1")["docker_compose"] is True
    assert plan({"board": COMPOSED}, THREE, "db1")["docker_compose"] is False
    assert plan({"ocr": OCR}, ONE, "web1")["docker_compose"] is False


def test_what_a_container_keeps_is_backed_up() -> None:
    assert "/var/lib/shipshape/ocr" in plan({"ocr": OCR}, ONE, "web1")["backup_paths"]
    assert "/var/lib/shipshape/ocr" not in plan({"ocr": {**OCR, "volumes": {}}}, ONE, "web1")["backup_paths"]


POOLED = {**API, "database": {"pool": 20}}


def test_an_app_with_a_pool_comes_by_way_of_pgbouncer_and_migrates_past_it() -> None:
    env = app(ONE, "web1", database={"pool": 20})["env"]
    assert env["DATABASE_URL"] == "postgresql://malar_api:p%40ss%2Fw%3Ard@127.0.0.1:6432/malar_api"
    assert env["DIRECT_DATABASE_URL"] == "postgresql://malar_api:p%40ss%2Fw%3Ard@127.0.0.1:5432/malar_api"
    (row,) = plan_apps({"malar-api": POOLED}, THREE, "app1", PASSWORDS, pooler=6543)
    assert "@10.0.0.3:6543/" in row["env"]["DATABASE_URL"] and "@10.0.0.3:5432/" in row["env"]["DIRECT_DATABASE_URL"]
    mine = app(ONE, "web1", database={"pool": 20}, env={"DATABASE_URL": "postgresql+asyncpg://u:p@h/d"})["env"]
    assert mine["DATABASE_URL"] == "postgresql+asyncpg://u:p@h/d" and "DIRECT_DATABASE_URL" not in mine


def test_an_app_in_the_database_of_another_has_a_pool_of_its_own_there() -> None:
    apps = {"malar-api": POOLED, "desk": {**API, "domains": [], "database": {"in": "malar_api", "pool": 5}}}
    owner, guest = plan(apps, ONE, "web1")["pgbouncer_pools"]
    assert "entry" not in owner and owner["database"] == "malar_api"
    assert guest == {
        "name": "desk",
        "database": "malar_api",
        "entry": "desk",
        "role": "desk",
        "size": 5,
        "addresses": [],
    }
    (row,) = [row for row in plan_apps(apps, ONE, "web1", PASSWORDS | {"desk": "x"}) if row["name"] == "desk"]
    assert row["env"]["DATABASE_URL"] == "postgresql://desk:x@127.0.0.1:6432/desk"
    assert row["env"]["DIRECT_DATABASE_URL"] == "postgresql://desk:x@127.0.0.1:5432/malar_api"


def test_an_app_starts_after_the_pooler_and_the_redis_of_its_own_host_and_waits_for_no_other() -> None:
    wishes = {"database": {"pool": 20}, "redis": ["cache", "sessions"]}
    units = ["pgbouncer.service", "redis-server@cache.service", "redis-server@sessions.service"]
    given = {**PASSWORDS, "redis:malar-api": "p"}
    instances: dict[str, dict[str, Any]] = {"cache": {}, "sessions": {}}

    def after(topology: Topology, host: str, **changes: Any) -> Any:
        apps = {"malar-api": {**API, **changes}}
        return plan_apps(apps, topology, host, given, redis=instances)[0].get("after")

    assert after(ONE, "web1", **wishes) == units
    assert after(ONE, "web1") is None and after(THREE, "app1", **wishes) is None


def test_a_container_finds_the_pooler_by_the_socket_too() -> None:
    container = {"type": "container", "image": "r.in/ocr:1", "database": {"pool": 5, "password": "x"}}
    (row,) = plan_apps({"ocr": container}, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:x@/ocr?host=/var/run/postgresql&port=6432"
    assert row["env"]["DIRECT_DATABASE_URL"] == "postgresql://ocr:x@/ocr?host=/var/run/postgresql"


def test_pools_are_on_the_database_host_for_the_app_hosts_alone() -> None:
    apps = {"malar-api": POOLED, "desk": {**API, "domains": [], "database": {}}}
    planned = plan(apps, THREE, "db1", pooler=6543)
    assert planned["pgbouncer_pools"] == [
        {"name": "malar-api", "database": "malar_api", "role": "malar_api", "size": 20, "addresses": ["10.0.0.2/32"]}
    ]
    assert planned["pgbouncer_listen_addresses"] == ["127.0.0.1", "10.0.0.3"]
    rule = {"name": "pgbouncer", "port": 6543, "protocol": "tcp", "sources": ["10.0.0.2/32"]}
    assert rule in planned["hardening_contributed_firewall_rules"]
    assert plan(apps, THREE, "app1")["pgbouncer_pools"] == []
    one = plan(apps, ONE, "web1")
    assert one["pgbouncer_listen_addresses"] == ["127.0.0.1"] and one["pgbouncer_pools"][0]["addresses"] == []
    assert [row["port"] for row in one["listens"] if row["name"] == "pgbouncer"] == [6432]
    assert "pgbouncer" not in [row["name"] for row in plan(APPS, THREE, "db1")["listens"]]
