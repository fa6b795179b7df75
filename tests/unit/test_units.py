"""From what systemd says to the verbs that are needed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils.systemd_units import once, parse_show, plan

RUNNING = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
STOPPED = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}
MISSING = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
MASKED = {"LoadState": "masked", "ActiveState": "inactive", "UnitFileState": "masked"}


def unit(**wanted: Any) -> dict[str, Any]:
    return {"state": None, "enabled": None, "masked": None, **wanted}


@pytest.mark.parametrize(
    ("wanted", "now", "verbs"),
    [
        (unit(state="started", enabled=True), RUNNING, []),
        (unit(state="started", enabled=True), STOPPED, ["enable", "start"]),
        (unit(state="started", enabled=True), MISSING, ["enable", "start"]),
        (unit(state="stopped", enabled=False), RUNNING, ["disable", "stop"]),
        (unit(state="stopped", enabled=False), STOPPED, []),
        (unit(state="reloaded"), RUNNING, ["reload"]),
        (unit(state="reloaded"), STOPPED, ["start"]),
        (unit(state="restarted"), STOPPED, ["restart"]),
        (unit(state="stopped", masked=True), RUNNING, ["stop", "mask"]),
        (unit(state="started", masked=False, enabled=True), MASKED, ["unmask", "enable", "start"]),
        (unit(enabled=True), dict(RUNNING, UnitFileState="static"), []),
    ],
)
def test_only_what_differs_is_done(wanted: dict[str, Any], now: dict[str, str], verbs: list[str]) -> None:
    assert plan(wanted, now) == verbs


def test_a_unit_is_started_once_however_many_ask_for_it() -> None:
    asked = [["start", "a"], ["reload", "b"], ["restart", "a"], ["enable", "a"], ["restart", "b"], ["start", "c"]]
    assert once(asked) == [["restart", "a"], ["restart", "b"], ["enable", "a"], ["start", "c"]]


def test_each_block_of_show_is_one_unit() -> None:
    text = "Id=a.service\nActiveState=active\n\nId=b.service\nActiveState=inactive\n"
    assert [block["Id"] for block in parse_show(text)] == ["a.service", "b.service"]
