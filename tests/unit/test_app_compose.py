"""What becomes of the services of a Compose file, by what either version of Compose says of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_specs, app_units
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_compose,
    app_container,
    app_stack,
    app_stack_build,
    app_store,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_compose import Refused, Wanted
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, write_record

from tests.unit.app_tools import store_with

A, B = "20260101T000000Z-aaaaaaa", "20260102T000000Z-bbbbbbb"

#: As `docker-compose config` of 1.29 prints it.
OLD = """
networks:
  back: {}
secrets:
  tok: {file: /srv/board/releases/R/src/tok.txt}
services:
  once: {command: [migrate], image: "r.test/tool:1", networks: {back: null}, restart: "no"}
  store:
    environment: {PASSWORD: a$$b}
    image: redis:7
    ports: [{published: 6379, target: 6379}, "127.0.0.1:7000:7000/udp", {target: 9000}]
    volumes: [data:/data:rw, /srv/board/releases/R/src/init.d:/init.d:ro, /var/log:/host/log:ro]
  tool: {image: "r.test/tool:1", profiles: [debug]}
  web:
    build: {context: /srv/board/releases/R/src}
    command: python3 server.py
    container_name: myweb
    depends_on: {store: {condition: service_healthy}}
    environment: {GREETING: hi $$HOME, UNSET: null}
    ports: [{published: 8000, target: 8000}]
    restart: always
    volumes: [uploads:/data:rw, /srv/board/releases/R/src/conf.txt:/etc/conf.txt:ro]
  worker:
    build: {context: /srv/board/releases/R/src}
    depends_on: {store: {condition: service_started}, web: {condition: service_started}}
version: '3.9'
volumes: {data: {}, uploads: {}}
"""
#: As `docker compose config --format json` of 2.26 prints it.
NEW = {
    "name": "board",
    "networks": {"back": {"name": "board_back"}, "default": {"name": "board_default"}},
    "services": {
        "store": {
            "command": None,
            "environment": {"PASSWORD": "a$$b"},
            "image": "redis:7",
            "networks": {"default": None},
            "ports": [
                {"mode": "ingress", "target": 6379, "published": "6379", "protocol": "tcp"},
                {"mode": "ingress", "host_ip": "127.0.0.1", "target": 7000, "published": "7000", "protocol": "udp"},
                {"mode": "ingress", "target": 9000, "protocol": "tcp"},
            ],
            "volumes": [
                {"type": "volume", "source": "data", "target": "/data", "volume": {}},
                {"type": "bind", "source": "/srv/board/releases/R/src/init.d", "target": "/init.d", "read_only": True},
            ],
        },
        "web": {
            "build": {"context": "/srv/board/releases/R/src", "dockerfile": "Dockerfile"},
            "container_name": "myweb",
            "deploy": {"replicas": 3, "resources": {"limits": {"memory": "1073741824"}}},
            "networks": {"default": {"ipv4_address": "10.1.0.9", "aliases": ["api"]}},
            "ports": [{"mode": "ingress", "target": 8000, "published": "8000", "protocol": "tcp"}],
            "restart": "always",
        },
    },
    "volumes": {"data": {"name": "board_data"}},
}
WANTED = Wanted("board", A, "web", 8000, environment={"SECRET": "s$x"})
IMAGES = {name: f"sha256:{name}" for name in ("once", "store", "tool", "web", "worker")}


def resolved(text: str = OLD, **services: Any) -> dict[str, Any]:
    found: dict[str, Any] = app_compose.parse(text)
    found["services"] = app_compose.active(found["services"], [])
    for name, changes in services.items():
        found["services"][name] = {**found["services"].get(name, {}), **changes}
    return found


def made(text: str = OLD, wanted: Wanted = WANTED, **services: Any) -> dict[str, Any]:
    images = {**IMAGES, **{name: f"sha256:{name}" for name in services}}
    text = text.replace("tok: {file: /srv/board/releases/R/src/tok.txt}", "tok: {file: /etc/hostname}")
    return dict(app_compose.runnable(resolved(text, **services), wanted, images, lambda _service, path: path))


def test_the_web_service_is_two_containers_of_its_colours_and_one_for_what_runs_once() -> None:
    services = made()["services"]
    assert set(services) == {"once", "store", "worker", "web", "web-blue", "web-green"}
    for colour in ("blue", "green"):
        row = services[f"web-{colour}"]
        assert row["container_name"] == f"board-{colour}" and row["restart"] == "no"
        assert row["labels"] == {"shipshape.app": "board", "shipshape.release": A, "shipshape.colour": colour}
        assert row["ports"] == ["${SHIPSHAPE_PUBLISHED:-127.0.0.1:0}:8000"]
        assert row["networks"] == {"default": {"aliases": ["web"]}}
        assert row["image"] == "sha256:web" and not {"build", "depends_on"} & set(row)
    assert not {"ports", "container_name", "restart", "depends_on", "build"} & set(services["web"])
    assert "shipshape.colour" not in services["web"]["labels"]


def test_both_versions_of_compose_lead_to_the_same_web_service() -> None:
    old, new = made()["services"]["web-blue"], made(json.dumps(NEW))["services"]["web-blue"]
    assert {key: old[key] for key in ("image", "container_name", "ports", "labels", "restart")} == {
        key: new[key] for key in ("image", "container_name", "ports", "labels", "restart")
    }
    assert new["networks"] == {"default": {"aliases": ["api", "web"]}}, "one address cannot be two containers'"
    assert new["deploy"] == {"resources": {"limits": {"memory": "1073741824"}}}, "no replicas under one name"


def test_the_inventory_s_environment_and_limits_are_the_web_service_s_alone() -> None:
    wanted = Wanted("board", A, "web", 8000, "512M", 1.5, {"SECRET": "s$x"})
    services = made(json.dumps(NEW), wanted)["services"]
    web = services["web-green"]
    assert web["environment"] == {"SECRET": "s$$x"} and web["mem_limit"] == "512m" and web["cpus"] == 1.5
    assert "memory" not in web["deploy"]["resources"]["limits"], "Compose refuses two limits that differ"
    assert services["store"]["environment"] == {"PASSWORD": "a$$b"} and "mem_limit" not in services["store"]


def test_what_others_publish_without_an_address_is_on_the_loopback_interface_alone() -> None:
    wanted = ["127.0.0.1:6379:6379/tcp", "127.0.0.1:7000:7000/udp", "127.0.0.1::9000/tcp"]
    for text in (OLD, json.dumps(NEW)):
        ports = made(text)["services"]["store"]["ports"]
        assert [port if "/" in port else port + "/tcp" for port in ports] == wanted


@pytest.mark.parametrize(
    ("port", "result"),
    [
        ("80", "127.0.0.1::80"),
        ("8080:80", "127.0.0.1:8080:80"),
        ("8080:80/udp", "127.0.0.1:8080:80/udp"),
        ("3000-3005:3000-3005", "127.0.0.1:3000-3005:3000-3005"),
        ("0.0.0.0:80:80", "0.0.0.0:80:80"),
        ("[::1]:80:80", "[::1]:80:80"),
        ("10.0.0.5::80", "10.0.0.5::80"),
        ({"target": 80, "published": 8080, "host_ip": "::1"}, "[::1]:8080:80/tcp"),
        (53, "127.0.0.1::53"),
    ],
)
def test_each_form_of_a_port_keeps_what_it_says(port: Any, result: str) -> None:
    assert app_compose.bound(port) == result


def test_the_other_services_start_after_a_reboot_unless_they_are_meant_to_end() -> None:
    file = made(job={"image": "x:1"}, store={"depends_on": {"job": {"condition": "service_completed_successfully"}}})
    services = file["services"]
    assert services["store"]["restart"] == services["worker"]["restart"] == "unless-stopped"
    assert services["once"]["restart"] == "no" and "restart" not in services["job"]
    assert file["x-shipshape"] == {
        "service": "web",
        "rest": ["job", "once", "store", "worker"],
        "may_end": ["job", "once"],
    }


def test_nothing_of_the_others_differs_between_two_releases_of_the_same_file() -> None:
    rest = ("once", "store", "worker")
    later = Wanted("board", B, "web", 8000, "1G", 2, {"SECRET": "another"})
    before, after = made(), made(wanted=later)
    assert {name: before["services"][name] for name in rest} == {name: after["services"][name] for name in rest}
    assert before["services"]["web-blue"] != after["services"]["web-blue"]


def test_the_order_in_which_several_files_were_merged_makes_no_difference() -> None:
    turned = OLD.replace(
        "[data:/data:rw, /srv/board/releases/R/src/init.d:/init.d:ro, /var/log:/host/log:ro]", "VOLUMES"
    )
    turned = turned.replace(
        "VOLUMES", "[/var/log:/host/log:ro, /srv/board/releases/R/src/init.d:/init.d:ro, data:/data:rw]"
    )
    assert turned != OLD and made(turned) == made()


def test_the_others_do_not_wait_for_the_web_service_and_reach_it_by_its_name() -> None:
    services = made(worker={"links": ["web:api", "store:cache"]})["services"]
    assert services["worker"]["depends_on"] == {"store": {"condition": "service_started"}}
    assert services["worker"]["links"] == ["store:cache"]
    assert services["web-blue"]["networks"]["default"]["aliases"] == ["web", "api"]


def test_a_service_of_a_profile_runs_only_when_the_profile_is_asked_for() -> None:
    services = app_compose.parse(OLD)["services"]
    assert "tool" not in app_compose.active(services, []) and "tool" in app_compose.active(services, ["debug"])


def test_images_are_built_under_names_that_keep_them_and_fetched_anew_only_for_the_web() -> None:
    found = resolved()
    building = app_compose.to_build(found, "board", A)
    assert {name: row["image"] for name, row in building["services"].items()} == {
        "web": f"board-web:shipshape-board-{A}",
        "worker": f"board-worker:shipshape-board-{A}",
    }
    listing = "\n".join(row["image"] for row in building["services"].values())
    assert app_container.unneeded(listing, "board", [A]) == []
    assert len(app_container.unneeded(listing, "board", [B])) == 2
    assert app_compose.to_pull(found, WANTED) == {"once": ("r.test/tool:1", False), "store": ("redis:7", False)}
    found["services"]["web"] = {"image": "r.test/tool:1"}
    found["services"]["store"]["pull_policy"] = "always"
    assert app_compose.to_pull(found, WANTED) == {
        "once": ("r.test/tool:1", True),
        "store": ("redis:7", True),
        "web": ("r.test/tool:1", True),
    }


def test_who_is_told_of_the_database_s_socket_gets_it() -> None:
    url = "postgresql://b@/b?host=/var/run/postgresql"
    wanted = Wanted("board", A, "web", 8000, environment={"DATABASE_URL": url}, sockets=["/var/run/postgresql"])
    services = made(wanted=wanted, worker={"environment": {"DB": url}})["services"]
    for name in ("web", "web-blue", "worker"):
        assert "/var/run/postgresql:/var/run/postgresql" in services[name]["volumes"]
    assert "/var/run/postgresql:/var/run/postgresql" not in services["store"]["volumes"]


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ({"web": {"network_mode": "host"}}, "`network_mode: host`, in which two releases cannot run side by side"),
        ({"side": {"image": "x", "network_mode": "service:web"}}, "service side has `network_mode` of web"),
        ({"side": {"image": "x", "volumes_from": ["web:ro"]}}, "service side has `volumes_from` of web"),
        ({"web-blue": {"image": "x"}}, "service web-blue has a name that the releases of web need"),
        ({"side": {"command": "x"}}, "service side has neither `image` nor `build`"),
    ],
)
def test_what_cannot_be_deployed_without_a_gap_is_refused(services: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message.replace("`", ".")):
        made(**services)


def test_a_service_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(Refused, match="it has no service api; it has once, store, web, worker; check `service`"):
        made(wanted=Wanted("board", A, "api"))


def test_a_file_without_services_is_refused() -> None:
    with pytest.raises(Refused, match="no `services`"):
        app_compose.parse("version: '3'\n")


# ---- the files of a release that are mounted


def spec(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "board",
        "type": "compose",
        "source": {"git": "https://git.test/board.git"},
        "service": "web",
        "container_port": 8000,
        "port": 20030,
        "second_port": 20031,
        **changes,
    }
    return dict(app_specs([row])["board"])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> app_stack_build.Checkout:
    monkeypatch.setattr(app_container, "STATE", str(tmp_path / "state"))
    return release_of(tmp_path, A)


def release_of(tmp_path: Path, release: str, **changes: Any) -> app_stack_build.Checkout:
    store = app_store.Store("board", str(tmp_path / "board"))
    source = Path(store.releases_directory, release, "src")
    (source / "init.d").mkdir(parents=True)
    (source / "init.d" / "a.sql").write_text("SELECT 1")
    (source / "uploads").mkdir()
    (source / "uploads" / ".gitkeep").write_text("")
    (source / "store.conf").write_text("maxmemory 64mb")
    return app_stack_build.Checkout(spec(**changes), store, str(source.parent))


def test_files_of_the_code_have_the_same_path_in_each_release_for_other_services(
    checkout: app_stack_build.Checkout, tmp_path: Path
) -> None:
    later = release_of(tmp_path, B)
    for name in ("store.conf", "init.d"):
        first = checkout.place("store", f"{checkout.source}/{name}")
        assert first == later.place("store", f"{later.source}/{name}")
        assert first.startswith(str(tmp_path / "board" / "files"))
    Path(later.source, "init.d", "a.sql").write_text("SELECT 2")
    moved = later.place("store", f"{later.source}/init.d")
    assert moved != checkout.place("store", f"{checkout.source}/init.d")
    assert Path(moved, "a.sql").read_text() == "SELECT 2"


def test_the_web_service_mounts_its_own_release(checkout: app_stack_build.Checkout) -> None:
    assert checkout.place("web", f"{checkout.source}/store.conf") == f"{checkout.source}/store.conf"


def test_a_folder_that_the_code_does_not_have_is_data_that_all_releases_share(
    checkout: app_stack_build.Checkout, tmp_path: Path
) -> None:
    for service in ("web", "store"):
        assert checkout.place(service, f"{checkout.source}/pgdata/13") == str(tmp_path / "state/board/pgdata/13")
        assert checkout.place(service, f"{checkout.source}/uploads") == str(tmp_path / "state/board/uploads")
    assert (tmp_path / "state/board/pgdata/13").is_dir()


def test_a_folder_of_the_code_that_is_declared_shared_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_container, "STATE", str(tmp_path / "state"))
    shared = release_of(tmp_path, A, shared=["init.d"])
    assert shared.place("store", f"{shared.source}/init.d") == str(tmp_path / "state/board/init.d")


def test_the_droplet_s_own_paths_stay_and_ways_out_of_the_code_are_refused(checkout: app_stack_build.Checkout) -> None:
    assert checkout.place("store", "/var/run/docker.sock") == "/var/run/docker.sock"
    with pytest.raises(Refused, match="out of the code"):
        checkout.place("store", os.path.normpath(f"{checkout.source}/../data"))


def test_a_secret_s_file_that_is_nowhere_is_asked_for_where_it_will_be_found(
    checkout: app_stack_build.Checkout, tmp_path: Path
) -> None:
    text = OLD.replace("/srv/board/releases/R/src", checkout.source)
    with pytest.raises(Refused, match=f"secret tok is not in the code, and there is no {tmp_path}/state/board/tok.txt"):
        app_compose.runnable(resolved(text), WANTED, IMAGES, checkout.place)
    (tmp_path / "state/board/tok.txt").write_text("t")
    file = app_compose.runnable(resolved(text), WANTED, IMAGES, checkout.place)
    assert file["secrets"]["tok"]["file"] == str(tmp_path / "state/board/tok.txt")


def test_files_that_no_release_mounts_are_removed(checkout: app_stack_build.Checkout) -> None:
    kept = checkout.place("store", f"{checkout.source}/store.conf")
    gone = checkout.place("store", f"{checkout.source}/init.d")
    Path(checkout.source).parent.joinpath("compose.json").write_text(json.dumps({"at": kept}))
    app_stack.prune(checkout.store)
    assert os.path.exists(kept) and not os.path.exists(os.path.dirname(gone))


# ---- what is run

COMPOSE = """#!/bin/sh
# A Docker that writes down how it was called, and has what the test says.
for word in "$@"; do printf '%s\\n' "$word"; done >>"$FAKE/called"
echo -- >>"$FAKE/called"
case "$1 $2" in
    "compose version") [ -e "$FAKE/version" ] && cat "$FAKE/version" || exit 1 ;;
    "compose -p") cat "$FAKE/answer"; cat "$FAKE/complaint" >&2; exit "$(cat "$FAKE/code")" ;;
    "ps --all") case "$*" in *status=running*) cat "$FAKE/running" ;; *) cat "$FAKE/there" ;; esac ;;
    "attach "*) : >"$FAKE/running" ;;
    "inspect --type=container") cat "$FAKE/inspect" ;;
    *) exit 0 ;;
esac
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, text in {
        "version": "2.26.1-4",
        "answer": "",
        "complaint": "",
        "code": "0",
        "there": "",
        "running": "",
    }.items():
        (folder / name).write_text(text)
    (folder / "inspect").write_text("[]")
    (folder / "called").write_text("")
    (folder / "docker").write_text(COMPOSE)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(app_stack, "SETTLED", 0.0)
    monkeypatch.setattr(app_stack, "time", SimpleNamespace(sleep=lambda _s: None, monotonic=iter(range(999)).__next__))
    return folder


def calls(fake: Path) -> list[list[str]]:
    return [call.splitlines() for call in (fake / "called").read_text().split("--\n") if call.strip()]


def container(service: str, status: str = "running", **facts: Any) -> dict[str, Any]:
    labels = {"com.docker.compose.service": service, **facts.pop("labels", {})}
    state = {"Status": status, "ExitCode": facts.pop("exit", 0)}
    health = facts.pop("health", "")
    state |= {"Health": {"Status": health}} if health else {}
    return {"Id": f"id-{service}", "Config": {"Labels": labels}, "State": state, **facts}


def there(fake: Path, *containers: dict[str, Any]) -> None:
    (fake / "there").write_text("\n".join(each["Id"] for each in containers))
    (fake / "inspect").write_text(json.dumps(containers))


def test_a_container_of_a_colour_is_made_by_compose_and_run_in_the_foreground(fake: Path) -> None:
    app = spec(migrate="alembic upgrade 'a head'", hooks={"after_start": "./warm"})
    files = app_stack_build.scripts(app, A, f"/srv/board/releases/{A}")
    assert set(files) == {"container", "migrate", "hook.after_start"}
    script = fake / "script"
    script.write_text(files["container"])
    subprocess.run(["sh", str(script), "blue", "127.0.0.1:20030"], check=True, timeout=20)
    create, start = [call for call in calls(fake) if call[0] in ("compose", "start") and "version" not in call]
    file = f"/srv/board/releases/{A}/compose.json"
    *create, service = create
    options = ["up", "--no-start", "--no-build", "--no-deps"]
    assert service == "web-blue" and create == ["compose", "-p", "board", "-f", file, *options]
    assert start == ["start", "--attach", "board-blue"]
    script.write_text(files["migrate"])
    subprocess.run(["sh", str(script)], check=True, timeout=20)
    options = ["run", "--no-deps", "-T", "--name", "board-migrate", "web"]
    run, remove = calls(fake)[-2:]
    assert run == ["compose", "-p", "board", "-f", file, *options, "alembic", "upgrade", "a head"]
    # By us and not by Compose, which would not know any more how it ended.
    assert remove == ["rm", "--force", "--volumes", "board-migrate"]


def test_a_migration_of_a_compose_file_goes_past_the_pooler(fake: Path) -> None:
    env = {"DATABASE_URL": "postgresql://o:p@/o?port=6432", "DIRECT_DATABASE_URL": "postgresql://o:p@/o"}
    files = app_stack_build.scripts(spec(migrate="alembic upgrade head", hooks={"after_start": "./warm"}), A, "/x", env)
    assert "export DATABASE_URL=postgresql://o:p@/o\n" in files["migrate"] and "-T -e DATABASE_URL " in files["migrate"]
    assert "DATABASE_URL" not in files["hook.after_start"] + files["container"]


def test_an_engine_that_starts_anew_finds_the_same_container_attached_to(fake: Path) -> None:
    (fake / "running").write_text("c0ffee")
    script = fake / "script"
    script.write_text(app_stack_build.scripts(spec(), A, "/x")["container"])
    subprocess.run(["sh", str(script), "green"], check=True, timeout=20)
    assert ["attach", "--no-stdin", "board-green"] in calls(fake)
    assert not [call for call in calls(fake) if "up" in call]


def test_an_app_of_a_compose_file_has_the_units_of_a_container() -> None:
    cron = [{"name": "cleanup", "schedule": "0 3 * * *", "command": "./clean"}]
    row = {"name": "board", "type": "compose", "port": 20030, "second_port": 20031, "cron": cron}
    units = [unit for unit in app_units([row]) if unit["path"].endswith(".service")]
    assert [unit["template"] for unit in units] == ["container.service.j2"] * 3
    assert [unit["vars"]["__app_unit"]["script"] for unit in units] == [
        "container blue 127.0.0.1:20030",
        "container green 127.0.0.1:20031",
        "cron.cleanup",
    ]
    assert "cron.cleanup" in app_stack_build.scripts(spec(cron=cron), A, "/x")


def test_a_compose_that_is_missing_or_too_old_is_said_with_what_to_do(fake: Path) -> None:
    (fake / "version").write_text("1.25.0")
    with pytest.raises(AppError, match=r"version 1.25 here and must be 1.27 or later.*docker_origin: upstream"):
        app_stack.command("board")
    (fake / "version").unlink()
    with pytest.raises(AppError, match=r"board: compose: Compose is not installed here; run playbooks/docker.yml"):
        app_stack.command("board")


def test_compose_s_own_words_are_shown_without_secrets(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text("services: {}")
    (fake / "code").write_text("15")
    (fake / "complaint").write_text("services.web.ports is s3cretvalue1\n")
    with pytest.raises(AppError) as error:
        app_stack_build.resolve(spec(), str(tmp_path), {"SECRET_KEY": "s3cretvalue1"})
    assert "Compose does not take compose.yml. Its words:\n    services.web.ports is ****" in str(error.value)


def test_a_variable_that_nobody_sets_is_warned_of(fake: Path, tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text("")
    (fake / "answer").write_text(json.dumps(NEW))
    (fake / "complaint").write_text('level=warning msg="The \\"TOKEN\\" variable is not set. Defaulting to a blank"')
    _found, warnings = app_stack_build.resolve(spec(), str(tmp_path), {})
    assert warnings == [
        "board: docker-compose.yml has ${TOKEN}, which is not set and therefore empty; give it in `env`"
    ]


def test_a_compose_file_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "compose.prod.yml").write_text("")
    with pytest.raises(AppError, match=r"there is no prod.yml in the code; it has deploy/compose.prod.yml; check"):
        app_stack_build.files_of(spec(compose_file="prod.yml"), str(tmp_path))
    with pytest.raises(AppError, match=r"no compose.yaml or compose.yml or"):
        app_stack_build.files_of(spec(), str(tmp_path))
    found = app_stack_build.files_of(spec(compose_file=["deploy/compose.prod.yml"]), str(tmp_path))
    assert found == [str(tmp_path / "deploy/compose.prod.yml")]


def test_a_project_of_somebody_else_under_the_app_s_name_is_not_taken_over(fake: Path) -> None:
    (fake / "there").write_text("board-web-1 \nboard-blue board\n")
    with pytest.raises(AppError, match=r"a Compose project board runs here that is not this app's \(board-web-1\)"):
        app_stack_build.check_project("board")
    (fake / "there").write_text("board-blue board\n")
    app_stack_build.check_project("board")


@pytest.fixture
def live(tmp_path: Path) -> tuple[app_store.Store, app_store.Release]:
    store = store_with(tmp_path / "board", {"id": A}, {"id": B}, current=A, colour="blue")
    for name in (A, B):
        path = os.path.join(store.releases_directory, name, "compose.json")
        rest = ["once", "store"] + (["cache"] if name == B else [])
        write_record(path, {"services": {}, "x-shipshape": {"rest": rest, "may_end": ["once"]}})
    release = store.release(A)
    assert release is not None
    return store, release


def test_only_what_does_not_run_is_started_before_a_release(
    fake: Path, live: tuple[app_store.Store, app_store.Release]
) -> None:
    store, release = live
    there(fake, container("once", "exited"), container("web", labels={"shipshape.release": A}))
    assert app_stack.ensure(spec(), store, release, 5) == ("", "")
    up = next(call for call in calls(fake) if "up" in call)
    assert up[-3:] == ["--no-build", "--no-deps", "store"]
    (fake / "called").write_text("")
    there(fake, container("once", "exited"), container("store"))
    assert app_stack.ensure(spec(), store, release, 5) == ("", "")
    assert not [call for call in calls(fake) if "up" in call], "what runs is left alone"


def test_a_service_that_ends_at_once_is_named_with_its_exit_status(
    fake: Path, live: tuple[app_store.Store, app_store.Release]
) -> None:
    _store, release = live
    there(fake, container("store", "exited", exit=7))
    assert app_stack.settled("board", release, set(), ["store"], 5)[0] == "its service store ended (exit 7)"
    there(fake, container("store", RestartCount=2))
    assert app_stack.settled("board", release, set(), ["store"], 5)[0] == "its service store ended again and again"
    there(fake, container("store", "restarting", RestartCount=2))
    assert 'say `restart: "no"`' in app_stack.settled("board", release, set(), ["store"], 5)[0]
    there(fake, container("once", "exited"))
    assert app_stack.settled("board", release, set(), ["once"], 5) == ("", "")
    there(fake, container("store", health="starting"))
    assert "is not healthy after 5 seconds" in app_stack.settled("board", release, set(), ["store"], 5)[0]


def test_services_of_another_release_or_that_do_not_run_are_a_reason_to_start_anew(
    fake: Path, live: tuple[app_store.Store, app_store.Release]
) -> None:
    store, release = live
    there(fake, container("store"), container("once", "exited"))
    assert app_stack.problems(spec(), store, release) == ["its other services are those of release none"]
    app_stack.bring(spec(), store, release, 5)
    assert app_stack.problems(spec(), store, release) == []
    there(fake, container("store", "exited"), container("once", "exited"))
    assert app_stack.problems(spec(), store, release) == ["its service store is not running"]


def test_after_a_failed_release_the_services_are_those_of_the_serving_one_and_the_new_ones_end(
    fake: Path, live: tuple[app_store.Store, app_store.Release]
) -> None:
    store, release = live
    there(fake, container("store"), container("once", "exited"), container("cache"))
    write_record(os.path.join(store.directory, "services.json"), {"release": B})
    assert app_stack.give_back(spec(), store, release, 5) == ""
    made_calls = calls(fake)
    up = next(call for call in made_calls if "up" in call)
    assert up[4] == os.path.join(release.path, "compose.json") and up[-2:] == ["once", "store"]
    assert ["stop", "id-cache"] in made_calls and ["rm", "--force", "id-cache"] in made_calls
    assert not [call for call in made_calls if "--volumes" in call or "volume" in call], "no volume is ever removed"


def test_what_compose_says_of_its_own_doings_is_no_output_of_a_migration() -> None:
    said = "Creating board_web_run ... \nCreating board_web_run ... done\n Network board_default  Created\nmigrated 3"
    assert app_stack.without_chatter(said) == "migrated 3"


def test_the_old_form_is_read_as_what_it_is() -> None:
    assert app_compose.parse(OLD) == yaml.safe_load(OLD) and app_compose.parse(json.dumps(NEW)) == NEW
