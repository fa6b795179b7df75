"""Several hosts of one app switch at once; and a run is known by the process of its playbook."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter import app_round as filters


def facts(action: str = "none", colour: str = "blue", **more: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "release": "r1",
        "action": action,
        "colour": colour,
        "switched": True,
        "given_up": "",
        **more,
    }


def plans(**hosts: Any) -> dict[str, Any]:
    return {host: {"apps": {"shop": row}} if row else {} for host, row in hosts.items()}


def test_where_nothing_is_to_be_done_the_proxy_is_only_seen_to() -> None:
    made = filters.app_round(plans(app1=facts(colour="green")), "app1")
    assert (made["rows"], made["build"]) == ([], [])
    assert made["settle"] == [{"name": "shop", "to": "green"}]


def test_a_host_without_any_of_the_apps_has_nothing_to_do() -> None:
    for nothing in ({}, {"changed": False, "skipped": True}):
        made = filters.app_round({"web1": nothing, "app1": plans(app1=facts("deploy"))["app1"]}, "web1", ["app1"])
        assert made == {"rows": [], "settle": [], "build": []}


def test_a_first_release_is_blue_and_the_next_ones_take_turns() -> None:
    for live, colour in (("", "blue"), ("blue", "green"), ("green", "blue")):
        made = filters.app_round(plans(app1=facts("deploy", live)), "app1")
        assert [(row["colour"], row["back"], row["leads"]) for row in made["rows"]] == [(colour, live, True)]
        assert made["build"] == made["rows"]


def test_a_host_with_nothing_to_do_switches_with_the_others() -> None:
    everybody = plans(app1=facts(colour="green"), app2=facts("deploy", "", release="r2"))
    first, second = (filters.app_round(everybody, host) for host in everybody)
    assert [(row["action"], row["release"], row["colour"]) for row in first["rows"]] == [("activate", "r1", "blue")]
    assert [(row["action"], row["release"], row["colour"]) for row in second["rows"]] == [("deploy", "r2", "blue")]
    assert (first["build"], [row["leads"] for row in first["rows"] + second["rows"]]) == ([], [True, False])
    assert (len(first["settle"]), second["settle"]) == (1, [])


def test_a_run_that_leaves_out_a_host_of_the_app_is_refused_unless_nothing_changes() -> None:
    with pytest.raises(AnsibleFilterError, match=r"shop: all its hosts switch .* this run leaves out app2; .*--limit"):
        filters.app_round(plans(app1=facts("deploy")), "app1", ["app1", "app2"])
    assert filters.app_round(plans(app1=facts()), "app1", ["app1", "app2"])["rows"] == []


def test_an_app_that_no_proxy_leads_to_concerns_its_own_host_alone() -> None:
    alone = facts("activate", switched=False)
    made = filters.app_round(plans(app1=alone, app2=facts(switched=False), web1=None), "app1", ["app1", "app9"])
    assert [(row["colour"], row["leads"]) for row in made["rows"]] == [("green", False)] and made["settle"] == []
    assert filters.app_round(plans(app1=alone, app2=facts(switched=False)), "app2")["rows"] == []


def switches(**changes: Any) -> list[dict[str, Any]]:
    row = {**facts("deploy"), "colour": "green", "back": "blue", "leads": True, **changes}
    made: list[dict[str, Any]] = filters.app_switches(
        [row],
        {"shop": {"domain": "d", "domain_health": "/a/h", "health": "/h", "watch_seconds": changes.get("own", -1)}},
        10,
    )
    return made


def test_a_release_is_watched_unless_there_is_nothing_to_go_back_to() -> None:
    assert switches()[0] == {
        "name": "shop",
        "to": "green",
        "back": "blue",
        "domain": "d",
        "health": "/a/h",
        "watch": 10,
    }
    assert switches(own=0)[0]["watch"] == 0 and switches(own=60)[0]["watch"] == 60
    assert switches(back="")[0]["watch"] == switches(given_up="r2")[0]["watch"] == 0
    assert switches(leads=False) == []


def test_what_one_proxy_has_seen_leads_all_of_them_back() -> None:
    seen = [{}, None, {"results": [{"failures": {}}, {"failures": {"shop": "watch: bad"}}]}]
    failures = filters.app_failures(seen)
    assert failures == {"shop": "watch: bad"}
    assert filters.app_returns(switches(), failures) == [{"name": "shop", "to": "blue"}]
    assert filters.app_returns(switches(), {}) == filters.app_returns(switches(back=""), failures) == []
    assert filters.app_returns(switches()) == [{"name": "shop", "to": "blue"}]


def test_a_run_is_its_playbook_and_is_alive() -> None:
    holder = filters.app_holder("deploy", "ann")
    assert (holder["who"], holder["why"]) == ("ann", "deploy")
    assert holder["run"].partition(":")[0] == str(os.getpid()) and holder["run"] in holder["alive"]
