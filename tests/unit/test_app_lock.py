"""One run at a time works on an app; a dead one's lock is taken over, a stranger's is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_lock, app_store, app_system, app_trail

from tests.unit.app_tools import be_the_app_user


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> app_store.Store:
    be_the_app_user(monkeypatch)
    return app_store.Store("shop", str(tmp_path))


def holder(
    run: str = "7:1", who: str = "ann", controller: str = "laptop", alive: Any = ("7:1", "8:1")
) -> dict[str, Any]:
    return {"run": run, "who": who, "controller": controller, "why": "deploy of v2", "alive": alive and list(alive)}


def test_a_second_run_is_refused_with_the_name_of_the_first(store: app_store.Store) -> None:
    assert app_lock.acquire(store, holder()) == ""
    assert app_lock.acquire(store, holder()) == ""
    for second in (holder("8:1", "bob"), holder("9:1", "bob", "desktop", ("9:1",)), holder("8:1", "bob", alive=None)):
        with pytest.raises(
            app_system.AppError, match=r"shop: lock: .*deploy of v2 of ann on laptop since 20.*break_lock"
        ):
            app_lock.acquire(store, second)


def test_a_run_that_is_dead_on_the_same_controller_is_taken_over(store: app_store.Store) -> None:
    app_lock.acquire(store, holder())
    assert "was cut off (deploy of v2 of ann" in app_lock.acquire(store, holder("8:1", "bob", alive=["8:1"]))
    assert app_lock.who(store) == "bob"
    with pytest.raises(app_system.AppError, match=r"bob on laptop since .* has taken this app over; this run stops"):
        app_lock.hold(store, "7:1")
    app_lock.release(store, "7:1")
    app_lock.hold(store, "8:1")
    app_lock.release(store, "8:1")
    with pytest.raises(app_system.AppError, match="the lock is gone"):
        app_lock.hold(store, "8:1")


def test_a_lock_from_elsewhere_is_broken_only_when_somebody_says_so(store: app_store.Store) -> None:
    app_lock.acquire(store, holder())
    record = app_system.read_record(store.lock_path) or {}
    app_system.write_record(store.lock_path, {**record, "touched": "2026-01-01T00:00:00Z"})
    stranger = holder("9:1", "bob", "desktop", ("9:1",))
    with pytest.raises(app_system.AppError, match=r"done nothing for \d+ minutes and is probably dead; take over"):
        app_lock.acquire(store, stranger)
    assert "the lock was broken" in app_lock.acquire(store, stranger, break_lock=True)


def test_each_step_leaves_a_line_that_nobody_else_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_the_app_user(monkeypatch)
    monkeypatch.setattr(app_trail, "TRAIL", str(tmp_path / "log" / "deploys.log"))
    with app_trail.step("shop", "r1", "build", "ann"):
        pass
    with pytest.raises(app_system.AppError), app_trail.step("shop", "r1", "start", "ann"):
        raise app_system.AppError("shop", "health", "not well\nthe app's own log")
    lines = [json.loads(line) for line in Path(app_trail.TRAIL).read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["outcome"], line["who"]) for line in lines] == [
        ("build", "done", "ann"),
        ("start", "failed", "ann"),
    ]
    assert lines[1]["why"] == "shop: health: not well"
    assert os.stat(app_trail.TRAIL).st_mode & 0o777 == 0o640


def test_a_webhook_that_does_not_answer_is_told_of_and_fails_nothing() -> None:
    assert app_trail.tell("", "x") == ""
    assert "cannot be reached" in app_trail.tell("http://127.0.0.1:9/", "x")
