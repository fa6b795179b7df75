"""The named settings of the hardening role: what is in force, what is switched off, and that every name is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter.hardening import (
    KEYS,
    hardening,
    sshd_effective,
    sshd_lines,
)
from ansible_collections.shipshape.droplet.plugins.plugin_utils.rolevars import check_values

ROLE = Path(__file__).parents[2] / "roles" / "hardening"
SETTINGS: dict[str, dict[str, Any]] = {
    "banner": {"summary": "s", "sshd": {"Banner": "/b"}, "files": [{"path": "/b", "foreign": True, "content": "x"}]},
    "modules": {"summary": "s", "modules": ["cramfs", "usb"], "packages": ["kmod"]},
    "shm": {
        "summary": "s",
        "default": False,
        "packages": ["kmod"],
        "files": [
            {"path": "/etc/d", "state": "directory"},
            {"path": "/etc/d/x", "content": "x", "mode": "0600", "restart": "x.service"},
        ],
        "units": [{"name": "x.service", "enabled": True}],
    },
}


def role_settings() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted((ROLE / "vars" / "main").glob("*.yml")):
        for name, value in yaml.safe_load(path.read_text()).items():
            if name.startswith("__hardening_settings_"):
                found.update(value)
    return found


def test_settings_are_in_force_unless_they_are_off_by_default_or_skipped() -> None:
    assert hardening(SETTINGS, [], [])["active"] == ["banner", "modules"]
    assert hardening(SETTINGS, ["banner"], ["shm"])["active"] == ["modules", "shm"]
    assert hardening(SETTINGS, ["shm"], ["shm"])["active"] == ["banner", "modules"]


def test_a_setting_that_does_not_fit_the_host_is_passed_over_though_asked_for() -> None:
    settings = {"shm": {**SETTINGS["shm"], "needs": False}}
    assert hardening(settings, [], ["shm"])["active"] == []


def test_what_a_setting_wants_is_there_once() -> None:
    plan = hardening(SETTINGS, [], ["shm"])
    assert (plan["packages"], plan["modules"], plan["sshd"]) == (["kmod"], ["cramfs", "usb"], {"Banner": "/b"})
    assert plan["units"] == [{"name": "x.service", "enabled": True}]


def test_files_of_ours_go_with_their_setting_those_of_packages_are_given_back_and_directories_stay() -> None:
    plan = hardening(SETTINGS, ["banner"], [])
    assert plan["files"] == [
        {"path": "/b", "state": "original"},
        {"path": "/etc/d/x", "restart": "x.service", "state": "absent"},
    ]
    assert plan["sshd"] == {} and plan["units"] == []


def test_a_name_or_a_key_that_nobody_knows_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="names baner; there are: banner, modules, shm"):
        hardening(SETTINGS, ["baner"], [])
    with pytest.raises(AnsibleFilterError, match="modules says module, which nothing reads"):
        hardening({"modules": {"summary": "s", "module": ["usb"]}}, [], [])


def test_options_of_sshd_are_written_and_asked_for() -> None:
    options = {"HostKey": ["/a", "/b"], "MaxSessions": 10}
    assert sshd_lines(options) == ["HostKey /a", "HostKey /b", "MaxSessions 10"]
    assert sshd_effective(options) == ["hostkey /a", "hostkey /b", "maxsessions 10"]


def test_the_validation_knows_every_setting_and_says_which_one_was_meant() -> None:
    options = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    known = role_settings()
    for variable in ("hardening_skip", "hardening_also"):
        assert sorted(options[variable]["choices"]) == sorted(known)
    (problem,) = check_values({"hardening_skip": ["ssh_baner"]}, {"hardening": options})
    assert problem.path == ("hardening_skip", 0) and problem.wanted.startswith("did you mean `ssh_banner`?")


def test_every_setting_says_what_it_is_for_and_what_it_may_break() -> None:
    for name, setting in role_settings().items():
        assert set(setting) <= KEYS and setting["summary"], name
        assert isinstance(setting["rules"], list), name
