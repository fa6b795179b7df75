"""What the role of the apps is given: where an app is deployed, from what, and with which environment."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import app_port
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

from tests.unit.plan_cases import (
    API,
    APPS,
    COMPOSED,
    GIT,
    GROWN,
    OCR,
    ONE,
    PASSWORDS,
    PORT,
    THREE,
    app,
    container,
    site,
)


def test_apps_are_deployed_where_they_run_and_sites_where_they_are_served() -> None:
    assert [row["name"] for row in plan_apps(APPS, THREE, "web1")] == ["malar-web"]
    assert [row["name"] for row in plan_apps(APPS, THREE, "app1")] == ["malar-api"]
    assert plan_apps(APPS, THREE, "db1") == []
    assert [row["name"] for row in plan_apps(APPS, ONE, "web1")] == ["malar-api", "malar-web"]


def test_one_app_can_be_planned_alone_and_an_unknown_one_is_named() -> None:
    assert [row["name"] for row in plan_apps(APPS, ONE, "web1", only="malar-web")] == ["malar-web"]
    with pytest.raises(PlanError, match="no app 'malar-wep'; `apps` has: malar-api, malar-web"):
        plan_apps(APPS, ONE, "web1", only="malar-wep")


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


def test_an_app_of_another_language_is_planned_as_a_python_app_is() -> None:
    said = app(ONE, "web1", type="command", command="node server.js", build="npm ci")
    assert (said["type"], said["build"], said["second_port"]) == ("command", "npm ci", PORT + 1)
    apps = {"malar-api": {**API, "type": "command"}}
    assert plan(apps, ONE, "web1")["backup_paths"] == plan({"malar-api": API}, ONE, "web1")["backup_paths"]
    assert plan(apps, THREE, "app1")["listens"] == plan({"malar-api": API}, THREE, "app1")["listens"]


def test_an_app_without_domains_has_no_site_and_stays_on_the_loopback() -> None:
    apps = {"worker": {"type": "python", "source": GIT, "command": "celery worker"}}
    assert plan(apps, THREE, "web1")["nginx_sites"] == []
    assert plan(apps, THREE, "app1")["hardening_contributed_firewall_rules"] == []
    (worker,) = plan_apps(apps, THREE, "app1")
    assert "second_port" not in worker
    assert worker["env"] == {"HOST": "127.0.0.1", "PORT": str(app_port("worker"))}
    assert (worker["health"], worker["migrate"], worker["packages"]) == ("", "", [])


def test_the_users_environment_comes_last() -> None:
    mine = "postgresql+asyncpg://u:p@elsewhere/d"
    assert app(ONE, "web1", env={"DATABASE_URL": mine})["env"]["DATABASE_URL"] == mine


def test_without_passwords_there_is_no_database_url_and_with_a_wrong_set_an_error() -> None:
    (row, _) = plan_apps(APPS, ONE, "web1", None)
    assert "DATABASE_URL" not in row["env"]
    with pytest.raises(PlanError, match="the password of database role malar_api was not read"):
        plan_apps(APPS, ONE, "web1", {"other": "x"})


def test_a_site_that_is_built_is_told_its_environment_and_one_that_is_not_has_none() -> None:
    built = {"build": "npm run build", "publish": "dist", "env": {"MODE": True}, "hooks": {"before_build": "npm ci"}}
    said = app(ONE, "web1", "malar-web", **built)
    assert {key: said[key] for key in built} == {**built, "env": {"MODE": "true"}}
    assert not {"env", "build", "hooks"} & set(app(ONE, "web1", "malar-web"))


def test_a_process_and_a_health_path_can_be_said_in_one_word_or_in_full() -> None:
    assert app(ONE, "web1", processes={"worker": "celery"})["processes"] == [{"name": "worker", "command": "celery"}]
    said = app(ONE, "web1", health={"path": "/up", "status": 204, "body": "ok", "start_period": 90})
    keys = ("health", "health_status", "health_body", "health_timeout")
    assert [said[key] for key in keys] == ["/up", 204, "ok", 90]


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
