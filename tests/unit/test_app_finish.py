"""How a deploy ends: for good, back after the switch, or given up before it."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_specs
from ansible_collections.shipshape.droplet.plugins.module_utils import app_lock, app_process, app_store, app_trail
from ansible_collections.shipshape.droplet.plugins.modules import app_finish

from tests.unit.app_tools import be_the_app_user, store_with

A, B = "20260101T000000Z-aaaaaaa", "20260102T000000Z-bbbbbbb"
RUN = {"run": "7:1", "controller": "laptop", "who": "ann", "why": "deploy", "alive": None}


class Failed(Exception):
    """What fail_json was given."""


@pytest.fixture
def told() -> Iterator[tuple[str, list[str]]]:
    """A webhook, and what it heard."""
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/T0/secret", heard
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> app_store.Store:
    """Release A serves as blue, and B, never live before, runs as green."""
    be_the_app_user(monkeypatch)
    monkeypatch.setattr(app_trail, "TRAIL", str(tmp_path / "log" / "deploys.log"))
    monkeypatch.setattr(app_process.app_service, "systemctl", lambda *_, **__: (0, ""))
    monkeypatch.setattr(app_process.app_service, "is_up", lambda _state: True)
    monkeypatch.setattr(app_process.app_service, "show", lambda _units: {})
    monkeypatch.setattr(app_process.app_service, "drain", lambda *_where: 2)
    monkeypatch.setattr(app_process.app_service, "journal", lambda *_: "the app said s3cret-value-99")
    made = store_with(tmp_path, {"id": A}, {"id": B, "activated": "", "version": "main"}, current=A, colour="blue")
    made.point("blue", A)
    made.point("green", B)
    Path(made.releases_directory, B, "env").write_text('SECRET="s3cret-value-99"\n', encoding="utf-8")
    app_lock.acquire(made, RUN)
    return made


def finish(store: app_store.Store, webhook: str = "", **more: Any) -> dict[str, Any]:
    app = {
        "name": "shop", "type": "python", "directory": store.directory, "source": {"git": "g"}, "command": "serve",
        "port": 1, "second_port": 2, "health": "/health",
    }  # fmt: skip

    def fail(msg: str, **_: Any) -> None:
        raise Failed(msg)

    row = {"name": "shop", "release": B, "colour": "green", "given_up": ""}
    params = {
        "apps": [app_specs([app])["shop"]], "rows": [row], "failed": {}, "abandon": "", "run": "7:1", "drain": 30,
        "timeout": 1, "webhook": webhook, **more,
    }  # fmt: skip
    module = SimpleNamespace(params=params, check_mode=False, fail_json=fail, warn=pytest.fail)
    return app_finish.work(module)  # type: ignore[no-any-return]


def trail() -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in Path(app_trail.TRAIL).read_text(encoding="utf-8").splitlines()]
    return [(line["release"], line["outcome"], line["who"]) for line in lines]


def test_what_serves_well_is_live_for_good(store: app_store.Store, told: tuple[str, list[str]]) -> None:
    done = finish(store, told[0])
    assert done["summary"] == [f"shop: release {B} (main) is live; 2 connections were cut off after 30 seconds"]
    assert (store.current, store.healthy, store.colour) == (B, B, "green")
    assert (store.release_of("blue"), os.path.exists(store.lock_path)) == ("", False)
    assert trail() == [(B, "live", "ann")]
    assert len(told[1]) == 1 and told[1][0].endswith(f"Deployed: {done['summary'][0]}")


def test_what_fared_badly_is_rolled_back_and_its_log_told_to_the_operator_alone(
    store: app_store.Store, told: tuple[str, list[str]]
) -> None:
    seen = {"shop": "smoke: HTTP 500 token s3cret-value-99"}
    with pytest.raises(Failed) as failed:
        finish(store, told[0], failed=seen)
    assert str(failed.value) == (
        f"shop: smoke: HTTP 500 token ********; release {B} (main) was rolled back; release {A} goes on serving."
        " Its log:\nthe app said ********"
    )
    assert (store.current, store.colour, store.release_of("green")) == (A, "blue", "")
    assert [store.state(release) for release in store.releases()] == ["live", "rolled back"]
    assert trail() == [(B, "rolled back", "ann")] and "s3cret" not in Path(app_trail.TRAIL).read_text(encoding="utf-8")
    assert len(told[1]) == 1 and "s3cret" not in told[1][0] and "the app said" not in told[1][0]


def test_what_was_given_up_before_the_switch_is_taken_away(store: app_store.Store) -> None:
    with pytest.raises(Failed, match="shop: build: no such file"):
        finish(store, abandon="shop: build: no such file")
    assert [release.id for release in store.releases()] == [A]
    assert (store.current, store.colour, os.path.exists(store.lock_path)) == (A, "blue", False)


def test_a_run_whose_lock_was_taken_over_touches_nothing(store: app_store.Store) -> None:
    app_lock.acquire(store, {**RUN, "run": "8:1", "who": "bob"}, break_lock=True)
    for how in ({}, {"abandon": "x"}, {"failed": {"shop": "watch: bad"}}):
        with pytest.raises(Failed):
            finish(store, **how)
    assert (store.current, store.release_of("green"), app_lock.who(store)) == (A, B, "bob")


def test_a_way_back_gives_up_what_served(store: app_store.Store) -> None:
    finish(store)
    app_lock.acquire(store, RUN)
    finish(store, rows=[{"name": "shop", "release": A, "colour": "blue", "given_up": B}])
    assert [store.state(release) for release in store.releases()] == ["live", "rolled back"]
    assert trail() == [(B, "live", "ann"), (A, "rollback", "ann")]


def test_after_a_return_to_the_newer_release_a_plain_rollback_leads_to_the_older_one_again(
    store: app_store.Store,
) -> None:
    finish(store)
    for release, colour, left in ((A, "blue", B), (B, "green", A)):
        app_lock.acquire(store, RUN)
        finish(store, rows=[{"name": "shop", "release": release, "colour": colour, "given_up": left}])
    assert [store.state(release) for release in store.releases()] == ["kept", "live"]
    assert store.find("previous").id == A
