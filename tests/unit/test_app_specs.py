"""What the steps of a deploy are told about an app."""

from __future__ import annotations

import base64
import json
from typing import Any

from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_environment, app_specs, app_units

SHOP: dict[str, Any] = {
    "name": "shop",
    "type": "python",
    "source": {"git": "https://git.test/shop.git", "version": "main", "path": "backend"},
    "command": "serve $PORT",
    "health": "/health",
    "port": 20010,
    "env": {"SECRET_KEY": "correct-horse", "PORT": 20010},
}
SITE: dict[str, Any] = {"name": "site", "type": "static", "source": {"git": "https://git.test/site.git"}}


def spec(**changes: Any) -> dict[str, Any]:
    return dict(app_specs([{**SHOP, **changes}])["shop"])


def test_no_value_of_the_environment_is_in_what_the_steps_are_told() -> None:
    assert "correct-horse" not in json.dumps(app_specs([SHOP, SITE]))
    assert "correct-horse" not in json.dumps(app_units(app_specs([SHOP])))


def test_what_is_left_out_follows_from_the_name() -> None:
    site = app_specs([SITE])["site"]
    assert (site["user"], site["directory"], site["version"], site["path"]) == ("site", "/srv/site", "main", ".")


def test_another_value_in_the_environment_is_another_release() -> None:
    assert spec()["environment_fingerprint"] == spec()["environment_fingerprint"]
    assert (
        spec()["environment_fingerprint"] != spec(env={**SHOP["env"], "SECRET_KEY": "other"})["environment_fingerprint"]
    )


def test_another_command_or_folder_is_another_release_and_another_health_path_is_not() -> None:
    fingerprint = spec()["settings_fingerprint"]
    assert spec(command="serve --fast")["settings_fingerprint"] != fingerprint
    assert spec(source={**SHOP["source"], "path": "."})["settings_fingerprint"] != fingerprint
    assert spec(health="/healthz")["settings_fingerprint"] == fingerprint


def test_a_given_version_takes_the_place_of_the_apps_own() -> None:
    assert app_specs([SHOP], "v1.2")["shop"]["version"] == "v1.2"
    assert app_specs([SHOP], "")["shop"]["version"] == "main"


def test_the_environment_travels_as_one_sealed_piece_of_text() -> None:
    sealed = app_environment([SITE, SHOP], "shop")
    assert json.loads(base64.b64decode(sealed)) == {"SECRET_KEY": "correct-horse", "PORT": "20010"}


def test_only_apps_with_a_process_get_a_unit() -> None:
    units = app_units(app_specs([SHOP, SITE]))
    folder = "/etc/systemd/system"
    assert [unit["path"] for unit in units] == [f"{folder}/shop@blue.service", f"{folder}/shop@green.service"]


def test_each_colour_has_its_port_and_an_app_that_no_proxy_leads_to_has_one() -> None:
    def ports(**changes: Any) -> list[int]:
        units = app_units(app_specs([{**SHOP, "port": 20010, **changes}]))
        return [unit["vars"]["__app_unit"]["port"] for unit in units]

    assert ports(second_port=20011) == [20010, 20011]
    assert ports() == [20010, 20010]
