"""What the steps of a deploy are told about an app."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import (
    app_environment,
    app_prepares,
    app_specs,
    app_units,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options

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
    assert "correct-horse" not in json.dumps(app_units([SHOP]))


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


def test_the_modules_of_an_app_take_all_that_a_spec_says() -> None:
    assert set(app_specs([SHOP, SITE])["shop"]) <= set(app_options())


def test_a_given_version_takes_the_place_of_the_apps_own() -> None:
    assert app_specs([SHOP], "v1.2")["shop"]["version"] == "v1.2"
    assert app_specs([SHOP], "")["shop"]["version"] == "main"


def test_the_environment_travels_as_one_sealed_piece_of_text() -> None:
    sealed = app_environment([SITE, SHOP], "shop")
    assert json.loads(base64.b64decode(sealed)) == {"SECRET_KEY": "correct-horse", "PORT": "20010"}


def test_only_apps_with_a_process_get_a_unit() -> None:
    units = app_units([SHOP, SITE])
    folder = "/etc/systemd/system"
    written = [unit["path"] for unit in units if unit.get("state") != "absent"]
    assert written == [f"{folder}/shop@blue.service", f"{folder}/shop@green.service"]


def test_each_colour_has_its_port_and_an_app_that_no_proxy_leads_to_has_one() -> None:
    def ports(**changes: Any) -> list[int]:
        units = app_units([{**SHOP, "port": 20010, **changes}])
        return [unit["vars"]["__app_unit"]["port"] for unit in units if "vars" in unit]

    assert ports(second_port=20011) == [20010, 20011]
    assert ports() == [20010, 20010]


BUSY = {
    **SHOP,
    "memory": "512M",
    "cpus": 1.5,
    "after": ["pgbouncer.service", "redis-server@cache.service"],
    "processes": [
        {"name": "worker", "command": "celery worker", "count": 2, "stop_timeout": 300, "memory": "1G"},
        {"name": "beat", "command": "celery beat"},
    ],
    "cron": [{"name": "cleanup", "schedule": "0 3 * * *", "command": "python -m cleanup"}],
}


def units(app: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {Path(file["path"]).name: file["vars"]["__app_unit"] for file in app_units([app]) if "vars" in file}


def test_each_process_of_each_colour_has_a_unit_and_goes_down_with_the_one_that_answers() -> None:
    made = units(BUSY)
    assert set(made) == {
        *(f"shop@{colour}.service" for colour in ("blue", "green")),
        *(f"shop.{name}@{colour}.service" for name in ("worker", "worker-2", "beat") for colour in ("blue", "green")),
        "shop.cleanup.service",
    }
    second = made["shop.worker-2@green.service"]
    assert (second["beside"], second["script"], second["link"]) == ("shop@green.service", "process.worker", "green")
    assert (second["stop_timeout"], made["shop.beat@blue.service"]["stop_timeout"]) == (300, 60)


def test_a_process_has_limits_of_its_own_or_the_apps() -> None:
    made = units(BUSY)
    assert (made["shop@blue.service"]["memory"], made["shop@blue.service"]["cpus"]) == ("512M", 1.5)
    assert (made["shop.worker@blue.service"]["memory"], made["shop.worker@blue.service"]["cpus"]) == ("1G", 1.5)


def crontab(app: dict[str, Any]) -> dict[str, Any]:
    return dict(next(file for file in app_units([app]) if file["path"] == "/etc/cron.d/shipshape-app-shop"))


def test_a_line_of_the_crontab_starts_a_unit_and_no_line_leaves_no_file() -> None:
    assert "\n0 3 * * * root systemctl start --no-block shop.cleanup.service\n" in crontab(BUSY)["content"]
    assert crontab(SHOP) == {"path": "/etc/cron.d/shipshape-app-shop", "state": "absent"}


def test_another_worker_or_build_is_another_release_and_more_of_the_same_worker_is_none() -> None:
    fingerprint = spec(processes=BUSY["processes"])["settings_fingerprint"]
    more = [{**BUSY["processes"][0], "count": 5}, BUSY["processes"][1]]
    other = [{**BUSY["processes"][0], "command": "celery worker -c 4"}, BUSY["processes"][1]]
    assert spec(processes=more)["settings_fingerprint"] == fingerprint
    assert spec(processes=other)["settings_fingerprint"] != fingerprint
    assert spec(build="make")["settings_fingerprint"] != spec()["settings_fingerprint"]


def test_data_is_prepared_only_by_what_has_something_to_do_to_it() -> None:
    assert not app_prepares(spec()) and not app_prepares(spec(hooks={"before_start": "x"}))
    assert app_prepares(spec(migrate="m")) and app_prepares(spec(seed="s"))
    assert app_prepares(spec(hooks={"after_migrate": "x"}))


@pytest.mark.parametrize("name", sorted(units(BUSY)))
def test_systemd_takes_each_unit(name: str, tmp_path: Path) -> None:
    text = rendered(next(file for file in app_units([BUSY]) if file["path"].endswith("/" + name)))
    unit = units(BUSY)[name]
    assert f"/srv/shop/{unit['link']}/{unit['script']}" in text
    assert ("[Install]" in text) == (unit["script"] != "cron.cleanup")
    assert ("WantedBy=shop@" in text) == ("beside" in unit)
    assert re.search("^After=.* postgresql.service .*pgbouncer.service redis-server@cache.service$", text, re.MULTILINE)
    # systemd looks whether the programs are there; those of a release are not on this machine.
    (tmp_path / name).write_text(text.replace("/srv/shop", "/usr"), encoding="utf-8")
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True)
        complaints = [line for line in done.stderr.splitlines() if name in line and "Unknown" in line]
        assert not complaints


def rendered(file: dict[str, Any]) -> str:
    template = Path(__file__).parents[2] / "roles" / "app" / "templates" / file["template"]
    loader = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return loader.from_string(template.read_text(encoding="utf-8")).render(file["vars"])
