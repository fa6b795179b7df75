"""Which apps need a new release, which only a start, and which are let alone; and what counts as healthy."""

from __future__ import annotations

import http.server
import os
import pwd
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_specs
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_ground,
    app_process,
    app_service,
    app_store,
)
from ansible_collections.shipshape.droplet.plugins.modules import app_release

from tests.unit.app_tools import be_the_app_user, store_with

A, B = "20260101T000000Z-aaaaaaa", "20260102T000000Z-bbbbbbb"
OLD, NEW = "a" * 40, "b" * 40
UP = {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    be_the_app_user(monkeypatch)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(app_store, "UNITS", str(tmp_path))
    source = {"git": "https://git.test/shop.git", "path": "backend"}
    row = {
        "name": "shop",
        "type": "python",
        "directory": str(tmp_path),
        "source": source,
        "command": "serve",
        "env": {"A": "1"},
    }
    return dict(app_specs([row])["shop"])


def record(app: dict[str, Any], **facts: Any) -> dict[str, Any]:
    settings, environment = app["settings_fingerprint"], app["environment_fingerprint"]
    return {"id": A, "commit": OLD, "settings": settings, "environment": environment, **facts}


def decide(
    app: dict[str, Any], commit: str = OLD, state: Any = UP, redeploy: bool = False, **others: Any
) -> tuple[str, list[str]]:
    states = {"shop@blue.service": dict(state), **{f"shop@{colour}.service": other for colour, other in others.items()}}
    action, facts = app_release.decide(app, commit, states, redeploy)
    return action, facts["reasons"]


def test_an_app_that_is_as_it_should_be_is_let_alone(app: dict[str, Any], tmp_path: Path) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    assert decide(app) == ("none", [])


def test_an_app_without_a_release_is_deployed(app: dict[str, Any]) -> None:
    assert decide(app) == ("deploy", ["it has no release yet"])


def test_a_new_commit_is_deployed_and_named(app: dict[str, Any], tmp_path: Path) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    assert decide(app, NEW) == ("deploy", ["commit bbbbbbb instead of aaaaaaa"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"environment_fingerprint": "x"}, "its environment changed"),
        ({"settings_fingerprint": "x"}, "its command or folder changed"),
    ],
)
def test_changed_settings_are_a_new_release_of_the_same_commit(
    app: dict[str, Any], tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    assert decide({**app, **change}) == ("deploy", [reason])


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({}, "its service is not running"),
        ({**UP, "ActiveState": "activating", "SubState": "auto-restart"}, "its service is not running"),
        ({**UP, "UnitFileState": "disabled"}, "its service is not enabled"),
    ],
)
def test_a_service_that_is_down_is_started_with_the_release_it_has(
    app: dict[str, Any], tmp_path: Path, state: dict[str, str], reason: str
) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    assert decide(app, state=state) == ("activate", [reason])


def test_a_unit_that_changed_since_the_start_is_a_reason_to_start_anew(app: dict[str, Any], tmp_path: Path) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    (tmp_path / "shop@blue.service").write_text("[Service]\n", encoding="utf-8")
    assert decide(app) == ("activate", ["its unit changed since it started"])


def test_a_droplet_with_one_unit_of_old_is_taken_over(app: dict[str, Any], tmp_path: Path) -> None:
    store_with(tmp_path, record(app), current=A)
    (tmp_path / "shop.service").write_text("[Service]\n", encoding="utf-8")
    assert decide(app, state={}) == ("activate", ["it runs as shop.service of old"])


@pytest.mark.parametrize("state", [UP, {"ActiveState": "inactive", "UnitFileState": "enabled"}])
def test_what_a_switch_that_was_cut_off_has_left_is_brought_to_an_end(
    app: dict[str, Any], tmp_path: Path, state: dict[str, str]
) -> None:
    store_with(tmp_path, record(app), current=A, colour="blue")
    assert decide(app, green=state) == ("activate", ["shop@green.service is left of a switch that was cut off"])
    assert decide(app, green={"ActiveState": "inactive", "UnitFileState": "disabled"}) == ("none", [])


def test_a_switch_that_was_never_confirmed_is_gone_through_again(app: dict[str, Any], tmp_path: Path) -> None:
    store = store_with(tmp_path, record(app), record(app, id=B, commit=NEW, activated=""), current=A, colour="blue")
    store.switch(B)
    assert decide(app, NEW) == ("activate", [f"release {B} was not confirmed"])


def test_what_was_rolled_back_stays_so_until_something_changes_or_somebody_insists(
    app: dict[str, Any], tmp_path: Path
) -> None:
    store_with(
        tmp_path,
        record(app),
        record(app, id=B, commit=NEW, rolled_back="2026-01-03T00:00:00Z"),
        current=A,
        colour="blue",
    )
    action, facts = app_release.decide(app, NEW, {"shop@blue.service": UP}, False)
    assert action == "none" and "was rolled back on 2026-01-03T00:00:00Z and stays so" in facts["held"]
    assert decide(app, NEW, redeploy=True)[0] == "deploy"
    assert decide(app, "d" * 40)[0] == "deploy"
    assert decide({**app, "environment_fingerprint": "x"}, NEW)[0] == "deploy"


def test_going_back_without_anything_to_go_back_to_lists_what_there_is(app: dict[str, Any], tmp_path: Path) -> None:
    store = store_with(tmp_path, record(app), current=A, colour="blue")
    with pytest.raises(
        Exception, match=rf"shop: release: there is no earlier release to go back to; releases here: {A} \(live\)"
    ):
        store.find("previous")


def test_a_live_app_is_kept_at_its_commit_and_a_new_one_is_asked_for(app: dict[str, Any], tmp_path: Path) -> None:
    live = store_with(tmp_path, record(app), current=A, colour="blue")
    new = app_store.Store("news", str(tmp_path / "news"))
    assert app_release.live_commits([live, new]) == {"shop": OLD}


def test_a_way_back_says_what_is_given_up_and_a_return_to_a_newer_release_that_nothing_is(
    app: dict[str, Any], tmp_path: Path
) -> None:
    store = store_with(tmp_path, record(app), record(app, id=B, commit=NEW), current=B, colour="blue")
    back = app_release.way_back(app, "previous")[1]
    assert (back["release"], back["given_up"]) == (A, B)
    assert f"{B} is given up and not deployed again by itself" in back["summary"]
    store.switch(A)
    assert f"{A} is kept" in app_release.way_back(app, B)[1]["summary"]


def test_an_older_release_is_asked_where_it_listens_itself(app: dict[str, Any], tmp_path: Path) -> None:
    there = {"address": "127.0.0.1", "port": 20010, "path": "/health"}
    older = record(app, environment="another", health=there)
    store = store_with(tmp_path, older, record(app, id=B, health=there), current=B, colour="blue")
    moved = {**app, "port": 20099, "health": "/healthz"}
    gates = [app_process.gate_for(moved, "shop@blue.service", release, "blue", 1) for release in store.releases()]
    assert [gate.url for gate in gates] == ["http://127.0.0.1:20010/health", "http://127.0.0.1:20099/healthz"]
    switched = {**moved, "second_port": 20100}
    gates = [app_process.gate_for(switched, "shop@green.service", release, "green", 1) for release in store.releases()]
    assert [gate.url for gate in gates] == ["http://127.0.0.1:20100/health", "http://127.0.0.1:20100/healthz"]


class Server(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(b"body of it")

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def gate(
    monkeypatch: pytest.MonkeyPatch, port: int, states: list[dict[str, str]], path: str = "/health"
) -> app_service.Gate:
    """A gate before a service that goes through these states and stays in the last one."""
    left = list(states)
    monkeypatch.setattr(app_service, "show", lambda _units: {"shop.service": left.pop(0) if len(left) > 1 else left[0]})
    monkeypatch.setattr(app_service, "systemctl", lambda *_arguments: (0, ""))
    monkeypatch.setattr(app_service, "SETTLED", 0.5)
    return app_service.Gate("shop.service", "127.0.0.1", port, path, 1)


@pytest.fixture
def with_workers(app: dict[str, Any]) -> dict[str, Any]:
    processes = [{"name": "worker", "command": "celery", "count": 2, "stop_timeout": 60}]
    return {**app, "processes": processes}


def decide_with(app: dict[str, Any], **states: dict[str, str]) -> list[str]:
    named = {f"shop.{unit}.service": state for unit, state in states.items()}
    every = {"shop@blue.service": UP, **named}
    return list(app_release.decide(app, OLD, every, False)[1]["reasons"])


def test_workers_that_are_up_in_the_colour_that_serves_are_let_alone(
    with_workers: dict[str, Any], tmp_path: Path
) -> None:
    store_with(tmp_path, record(with_workers, processes=["worker"]), current=A, colour="blue")
    both = {"worker@blue": UP, "worker-2@blue": UP}
    assert decide_with(with_workers, **both) == []
    assert decide_with(with_workers, **{**both, "worker-2@blue": {"ActiveState": "failed"}}) == [
        "shop.worker-2@blue.service is not running"
    ]
    assert decide_with(with_workers, **both, **{"worker@green": UP}) == [
        "shop.worker@green.service is left of a switch that was cut off"
    ]


def test_a_worker_that_the_live_release_does_not_know_of_is_not_missed(
    with_workers: dict[str, Any], tmp_path: Path
) -> None:
    store_with(tmp_path, record(with_workers), current=A, colour="blue")
    assert decide_with(with_workers) == []


def test_workers_change_over_one_colour_after_the_other(
    with_workers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path, record(with_workers, processes=["worker"]), current=A, colour="blue")
    done: list[str] = []

    def systemctl(*words: str, **_: int) -> tuple[int, str]:
        done.append(" ".join(words))
        return 0, ""

    monkeypatch.setattr(app_service, "systemctl", systemctl)
    monkeypatch.setattr(app_service, "settled", lambda _units, _patience: ("", ""))
    release = store.find(A)
    assert app_process.start_others(with_workers, store, release, "green", 1) == ("", "")
    old, new = ([f"shop.worker{n}@{colour}.service" for n in ("", "-2")] for colour in ("blue", "green"))
    verbs = [words for words in done if words.split()[0] in ("stop", "restart")]
    assert verbs == ["stop " + " ".join(old), "restart " + " ".join(new)]


def test_workers_that_do_not_stay_up_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_service, "SETTLED", 0.1)
    states = {"a": RUNNING, "b": {**RESTARTING, "NRestarts": "3"}}
    monkeypatch.setattr(app_service, "show", lambda _units: states)
    assert app_service.settled(["a", "b"], 5) == ("b", "it ended again and again")
    assert app_service.settled(["a"], 5) == ("", "")
    states["b"] = RESTARTING
    assert app_service.settled(["a", "b"], 0.2) == ("b", "it did not stay up within 0 seconds")


def test_an_answer_with_another_status_or_text_is_not_healthy(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(Server, "status", 202)
    asked = {"address": "127.0.0.1", "port": port, "path": "/health"}
    assert app_service.probe(**asked, status=202, body="bo.y") == ""
    assert app_service.probe(**asked) == "HTTP 202 body of it"
    found = app_service.probe(**asked, status=202, body="ready")
    assert found == "HTTP 202, but nothing that matches 'ready' in: body of it"


RUNNING = {**UP, "MainPID": "42", "NRestarts": "0"}
RESTARTING = {"ActiveState": "activating", "SubState": "auto-restart", "MainPID": "0", "NRestarts": "1"}


def test_an_app_that_answers_200_is_healthy(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(Server, "status", 200)
    assert gate(monkeypatch, port, [RUNNING]).start() == ""


def test_an_app_that_answers_otherwise_is_not_and_its_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(Server, "status", 302)
    assert "HTTP 302 body of it" in gate(monkeypatch, port, [RUNNING]).start()


def test_the_answer_of_a_stranger_on_the_port_does_not_count(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(Server, "status", 200)
    assert "another process than the app's answers there" in gate(monkeypatch, port, [RESTARTING]).start()


def test_an_app_that_ends_again_and_again_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    waiting = gate(monkeypatch, port, [{**RESTARTING, "NRestarts": "3"}])
    waiting.patience = 600
    assert waiting.start() == "it ended again and again"


def test_without_a_health_path_staying_up_is_enough_and_flapping_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate(monkeypatch, 1, [RUNNING], path="").start() == ""
    flapping = [{**RUNNING, "MainPID": str(pid)} for pid in range(100)]
    assert gate(monkeypatch, 1, flapping, path="").start() == "it is not healthy after 1 seconds (it did not stay up)"


def test_the_log_that_is_shown_is_the_apps_and_not_the_echo_of_our_asking() -> None:
    asked = ['INFO: 127.0.0.1:3 - "GET /health HTTP/1.1" 503'] * 40
    log = "\n".join(["ValueError: no such column", *asked, 'INFO: 127.0.0.1:3 - "GET /healthy HTTP/1.1" 200'])
    assert app_service.without_asking(log, "/health").split("\n") == [
        "    ValueError: no such column",
        '    INFO: 127.0.0.1:3 - "GET /healthy HTTP/1.1" 200',
    ]


def test_preparing_an_app_takes_it_over_from_a_run_that_died(app: dict[str, Any], tmp_path: Path) -> None:
    store = store_with(tmp_path, record(app), current=A, colour="blue")
    store.plan(B)
    app_ground.prepare({**app, "user": pwd.getpwuid(os.getuid()).pw_name}, check_mode=True, lock=lambda _store: None)
    assert not store.is_overtaken(B)
    app_ground.prepare({**app, "user": pwd.getpwuid(os.getuid()).pw_name}, check_mode=False, lock=lambda _store: None)
    assert store.is_overtaken(B)
