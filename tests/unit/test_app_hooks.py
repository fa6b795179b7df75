"""What an app has run between the steps of its deploy, and what becomes of one of these that fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_specs
from ansible_collections.shipshape.droplet.plugins.module_utils import app_hook, app_lock, app_process, app_trail
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError
from ansible_collections.shipshape.droplet.plugins.modules import app_finish, app_release, app_start
from ansible_collections.shipshape.droplet.plugins.modules import app_hook as module_of_a_hook
from ansible_collections.shipshape.droplet.plugins.plugin_utils import hooks

from tests.unit.app_tools import be_the_app_user, store_with

A, B = "20260101T000000Z-aaaaaaa", "20260102T000000Z-bbbbbbb"
APP = {
    "name": "shop", "type": "python", "source": {"git": "g"}, "command": "serve", "port": 1, "second_port": 2,
    "health": "/health", "processes": [{"name": "worker", "command": "work"}],
}  # fmt: skip


class Stage:
    """Release A serves, B is to; the services are not there, and each step says that it was come to."""

    def __init__(self, directory: Path) -> None:
        self.seen: list[str] = []
        #: The moment whose hook fails.
        self.bad = ""
        self.app = app_specs([{**APP, "directory": str(directory)}])["shop"]
        self.store: Store = store_with(
            directory,
            {"id": A},
            {"id": B, "activated": "", "version": "main", "processes": ["worker"]},
            current=A,
            colour="blue",
        )
        self.store.point("blue", A)
        app_lock.acquire(self.store, {"run": "7:1", "controller": "laptop", "who": "ann", "why": "x", "alive": None})

    def hook(self, _app: Any, _release: Any, moment: str, _lock: Any = None) -> str:
        self.seen.append(moment)
        return f"hook {moment} `./it` failed (exit 1). Its last lines:\nno" if moment == self.bad else ""

    def finish(self, **more: Any) -> Any:
        row = {"name": "shop", "release": B, "colour": "green", "given_up": ""}
        params = {
            "apps": [self.app], "rows": [row], "failed": {}, "abandon": "", "run": "7:1", "drain": 30, "timeout": 1,
            "webhook": "", **more,
        }  # fmt: skip

        def fail(msg: str, **_: Any) -> None:
            raise AssertionError(msg)

        return app_finish.work(SimpleNamespace(params=params, check_mode=False, fail_json=fail, warn=pytest.fail))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    be_the_app_user(monkeypatch)
    monkeypatch.setattr(app_trail, "TRAIL", str(tmp_path / "deploys.log"))
    made = Stage(tmp_path / "shop")

    def systemctl(verb: str, *_units: str, **_: Any) -> tuple[int, str]:
        if verb in ("restart", "stop"):
            made.seen.append(verb)
        return 0, ""

    def drain(*_: Any) -> int:
        made.seen.append("drain")
        return 0

    def healthy(_gate: Any) -> str:
        made.seen.append("healthy")
        return ""

    for name, value in {
        "systemctl": systemctl, "is_up": lambda _state: True, "show": lambda _units: {}, "journal": lambda *_: "",
        "settled": lambda _units, _patience: ("", ""), "drain": drain,
    }.items():  # fmt: skip
        monkeypatch.setattr(app_process.app_service, name, value)
    monkeypatch.setattr(app_process.app_service.Gate, "wait", healthy)
    monkeypatch.setattr(app_hook, "run", made.hook)
    return made


def start(stage: Stage) -> None:
    app_start.start(stage.app, stage.store, B, "green", 1)


def test_each_step_of_a_start_has_its_moments(stage: Stage) -> None:
    start(stage)
    web = ["before_start", "stop", "restart", "before_health", "healthy"]
    workers = ["after_health", "stop", "restart", "after_start"]
    assert stage.seen == [*web, *workers]


@pytest.mark.parametrize("moment", ["before_start", "before_health", "after_health", "after_start"])
def test_one_that_fails_at_a_start_takes_the_new_release_away(moment: str, stage: Stage) -> None:
    stage.bad = moment
    with pytest.raises(AppError, match=f"shop: {moment}: release {B} .main.: hook {moment} `./it` failed") as failed:
        start(stage)
    assert str(failed.value).endswith(f"no\nrelease {A} goes on serving")
    assert [release.id for release in stage.store.releases()] == [A] and stage.store.release_of("green") == ""
    assert stage.seen[-1] != "after_start" or moment == "after_start"


def before_switch(stage: Stage) -> Any:
    params = {"app": stage.app, "release": B, "moment": "before_switch", "run": "7:1"}
    return module_of_a_hook.work(SimpleNamespace(params=params, check_mode=False))


def test_right_before_the_switch_a_hook_may_refuse_and_takes_nothing_away_by_itself(stage: Stage) -> None:
    assert before_switch(stage)["changed"] and stage.seen == ["before_switch"]
    stage.bad = "before_switch"
    with pytest.raises(AppError, match=f"shop: before_switch: nothing leads to release {B} .main.; hook before_switch"):
        before_switch(stage)
    assert (stage.store.current, stage.store.find(B).id) == (A, B)


def test_a_run_that_was_overtaken_runs_no_hook(stage: Stage) -> None:
    holder = {"run": "8:1", "controller": "laptop", "who": "bob", "why": "x", "alive": None}
    app_lock.acquire(stage.store, holder, break_lock=True)
    with pytest.raises(AppError):
        before_switch(stage)
    assert stage.seen == []


def test_the_old_release_ends_between_its_moments_once_the_new_one_is_confirmed(stage: Stage) -> None:
    stage.finish()
    assert stage.seen == ["after_switch", "before_stop", "drain", "stop", "after_stop"]


@pytest.mark.parametrize("moment", ["after_switch", "before_stop", "after_stop"])
def test_one_that_fails_after_the_switch_fails_the_run_and_nothing_else(moment: str, stage: Stage) -> None:
    stage.bad = moment
    with pytest.raises(AssertionError) as failed:
        stage.finish()
    assert str(failed.value).startswith(f"shop: {moment}: release {B} (main) is live, but hook {moment} `./it` failed")
    assert stage.seen == ["after_switch", "before_stop", "drain", "stop", "after_stop"]
    assert (stage.store.current, stage.store.healthy, stage.store.colour) == (B, B, "green")
    # Nobody has to wait for a run that is over.
    assert not Path(stage.store.lock_path).exists()
    trail = [json.loads(line) for line in Path(app_trail.TRAIL).read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["outcome"]) for line in trail] == [(moment, "failed"), ("end", "live")]


@pytest.mark.parametrize("how", [{"abandon": "x"}, {"failed": {"shop": "watch: bad"}}])
def test_what_is_given_up_or_led_back_comes_to_no_moment_after_the_switch(how: dict[str, Any], stage: Stage) -> None:
    with pytest.raises(AssertionError):
        stage.finish(**how)
    assert not set(stage.seen) & {"after_switch", "before_stop", "after_stop"}


def test_a_site_has_the_moments_of_its_switch_and_nothing_that_ends(stage: Stage) -> None:
    stage.app = {**stage.app, "type": "static"}
    stage.finish()
    assert stage.seen == ["after_switch"]


def test_a_release_that_is_there_has_its_own_moments_and_one_to_be_built_those_of_the_app(stage: Stage) -> None:
    app = {**stage.app, "hooks": {"before_switch": "x", "after_stop": "y"}}
    stage.store.find(A).note(hooks={"before_start": "z"})
    assert app_release.moments(app, stage.store, A) == ["before_start"]
    assert app_release.moments(app, stage.store, "20260103T000000Z-ccccccc") == ["after_stop", "before_switch"]


def test_the_page_says_what_a_failing_one_does_as_the_steps_do() -> None:
    page = hooks.page()
    assert all(f"| `{moment}` |" in page for moment in hooks.MOMENTS)
    before = [name for name, moment in hooks.MOMENTS.items() if moment.failing != hooks.AFTER]
    assert list(hooks.MOMENTS)[: len(before)] == before and before[-1] == "before_switch"
