"""The page of what an inventory may hold says what the validation and the plan do."""

from __future__ import annotations

from typing import Any

from ansible_collections.shipshape.droplet.plugins.plugin_utils.app_fields import PROCESS_KEYS, STATIC_KEYS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.compose import COMPOSE_KEYS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.container import CONTAINER_KEYS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.fields import GLOBALS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.reference import DEFAULTS, rows, table
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

ONE = Topology(("web1",), ("web1",), ("web1",))
LEAST: dict[str, Any] = {"type": "python", "source": {"git": "x"}, "command": "c", "domains": ["a.in"], "health": "/"}


def test_every_key_is_on_the_page_once() -> None:
    paths = [path for path, *_ in rows()]
    assert len(paths) == len(set(paths))
    names = {*PROCESS_KEYS, *CONTAINER_KEYS, *COMPOSE_KEYS, *STATIC_KEYS, "source"}
    wanted = set(GLOBALS) | {f"apps.NAME.{name}" for name in names}
    assert wanted | {"backup.s3.endpoint", "admins[].ssh_keys", "apps.NAME.database.extensions"} <= set(paths)
    assert set(DEFAULTS) <= set(paths)
    assert table().count("\n") == len(paths) + 2


def test_required_and_secret_keys_are_marked() -> None:
    page = {path: (kind, default) for path, kind, default, _ in rows()}
    assert page["backup.password"] == ("text, secret", "**required**")
    assert page["admins"] == ("list", "**required**")
    assert page["apps.NAME.database.password"][0] == "text, secret"


def test_the_defaults_on_the_page_are_the_plans() -> None:
    def said(key: str) -> str:
        default: str = DEFAULTS[f"apps.NAME.{key}"]
        return default.strip('`"')

    limited = {**LEAST, "rate_limit": {"per_minute": 100}}
    (site,) = plan({"my-api": limited}, ONE, "web1")["nginx_sites"]
    (app,) = plan_apps({"my-api": LEAST}, ONE, "web1")
    (static,) = plan({"s": {**LEAST, "type": "static"}}, ONE, "web1")["nginx_sites"]
    assert str(site["proxy"]["timeout"]) == said("timeout")
    assert site["proxy"]["max_body_size"] == said("max_body_size")
    assert site["rate_limit"]["burst"] == 20
    assert (app["source"]["version"], app["source"]["path"]) == (said("source.version"), said("source.path"))
    assert str(app["keep_releases"]) == said("keep_releases")
    assert static["static"]["spa"] is False and said("spa") == "false"
