"""Sets of files, with units whose files go and with what somebody has undone, in a directory of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import file_entry, file_set, owed_actions


class Failed(Exception):
    """The module said why."""


class Module:
    """As much of AnsibleModule as is asked for, on a host whose programs answer what the test says."""

    def __init__(self, answers: dict[str, list[str]] | None = None, check_mode: bool = False) -> None:
        self.check_mode, self._diff = check_mode, False
        self.params: dict[str, Any] = {"purge": [], "verify": None, "units": [], "effective": []}
        self.answers = answers or {}
        self.ran: list[str] = []

    def get_bin_path(self, name: str) -> str | None:
        return name if name == "systemctl" or any(command.startswith(name) for command in self.answers) else None

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        text = " ".join(command)
        self.ran.append(text)
        if text.startswith("systemctl show"):
            return 0, "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n", ""
        said = self.answers.get(text)
        return (0, (said.pop(0) if len(said) > 1 else said[0]), "") if said else (0, "", "")

    def fail_json(self, msg: str, **_more: Any) -> None:
        raise Failed(msg)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(file_set, "UNITS", str(tmp_path))
    monkeypatch.setattr(file_entry, "ORIGINALS", str(tmp_path / "originals"))
    monkeypatch.setattr(owed_actions, "DIRECTORY", str(tmp_path / "owed"))
    return tmp_path


def absent(path: Path) -> dict[str, Any]:
    return {**file_entry.PLAIN, "path": str(path), "state": "absent"}


def converge(module: Any, *specs: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = file_set.converge(module, [file_entry.Entry(module, spec, None) for spec in specs])
    return result


def enabled(folder: Path, name: str) -> Path:
    (folder / name).write_text("[Service]\n")
    wants = folder / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(folder / name)
    return folder / name


def test_a_service_whose_file_goes_is_stopped_and_no_link_to_it_is_left(places: Path) -> None:
    module = Module()
    result = converge(module, absent(enabled(places, "x.service")))
    assert result["actions"] == ["stop x.service"] and "systemctl stop x.service" in module.ran
    assert os.listdir(places / "multi-user.target.wants") == []


def test_a_link_that_an_earlier_run_left_goes_too(places: Path) -> None:
    enabled(places, "x.service").unlink()
    result = converge(Module(), absent(places / "x.service"))
    assert result["changed_files"] == [str(places / "multi-user.target.wants" / "x.service")]


def test_what_is_mounted_stays_until_the_next_boot(places: Path) -> None:
    module = Module()
    assert converge(module, absent(enabled(places, "tmp.mount")))["actions"] == []
    assert os.listdir(places / "multi-user.target.wants") == []


def test_check_mode_foretells_the_end_of_a_service(places: Path) -> None:
    module = Module(check_mode=True)
    assert converge(module, absent(enabled(places, "x.service")))["actions"] == ["stop x.service"]
    assert (places / "x.service").exists() and "systemctl stop x.service" not in module.ran


WANTED = {"command": "rules", "lines": ["-j OURS"], "hint": "Who was it?", "repair": "x.service"}


def test_what_somebody_has_undone_is_repaired_by_a_reload() -> None:
    module = Module({"rules": ["", "-j OURS\n"]})
    module.params["effective"] = [WANTED]
    result = converge(module)
    assert (result["actions"], result["changed"]) == (["reload x.service"], True)


def test_what_a_reload_does_not_repair_is_said() -> None:
    module = Module({"rules": [""]})
    module.params["effective"] = [WANTED]
    with pytest.raises(Failed, match=r"missing: -j OURS\. Who was it"):
        converge(module)


def test_what_is_in_force_is_left_alone_and_nothing_repairs_what_names_no_unit() -> None:
    module = Module({"rules": ["-j OURS\n"]})
    module.params["effective"] = [WANTED]
    assert converge(module)["changed"] is False
    module = Module({"rules": [""]})
    module.params["effective"] = [{**WANTED, "repair": None}]
    with pytest.raises(Failed):
        converge(module)


def test_check_mode_foretells_a_repair_and_passes_over_a_bare_host() -> None:
    module = Module({"rules": [""]}, check_mode=True)
    module.params["effective"] = [WANTED]
    assert converge(module)["actions"] == ["reload x.service"] and "systemctl reload x.service" not in module.ran
    module = Module(check_mode=True)
    module.params["effective"] = [WANTED]
    assert converge(module)["changed"] is False


def ours(path: Path) -> dict[str, Any]:
    user, group = file_entry.user_name(os.getuid()), file_entry.group_name(os.getgid())
    return {**file_entry.PLAIN, "path": str(path), "foreign": True, "owner": user, "group": group, "mode": "0640"}


def original(path: Path) -> dict[str, Any]:
    return {**file_entry.PLAIN, "path": str(path), "state": "original"}


def take(path: Path, text: str, module: Any = None) -> dict[str, Any]:
    module = module or Module()
    return file_set.converge(module, [file_entry.Entry(module, ours(path), text)])  # type: ignore[no-any-return]


def test_a_file_of_a_package_is_given_back_as_it_was_taken(places: Path) -> None:
    path = places / "login.defs"
    path.write_text("the package's\n")
    path.chmod(0o604)
    take(path, "ours\n")
    # A new text of ours, and somebody's edit of it, are not what is given back.
    take(path, "ours, later\n")
    path.write_text("edited\n")
    take(path, "ours, later\n")
    assert converge(Module(), original(path))["changed_files"] == [str(path)]
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("the package's\n", 0o604)
    assert converge(Module(), original(path))["changed"] is False


def test_where_nothing_was_nothing_is_left(places: Path) -> None:
    take(places / "motd", "ours\n")
    converge(Module(), original(places / "motd"))
    assert not (places / "motd").exists()


def test_a_file_of_which_no_original_is_kept_stays(places: Path) -> None:
    (places / "motd").write_text("ours\n")
    take(places / "motd", "ours\n")
    assert converge(Module(), original(places / "motd"))["changed"] is False
    assert (places / "motd").read_text() == "ours\n"


def test_check_mode_keeps_and_gives_back_nothing(places: Path) -> None:
    path = places / "motd"
    path.write_text("the package's\n")
    assert take(path, "ours\n", Module(check_mode=True))["changed"] and not (places / "originals").exists()
    take(path, "ours\n")
    assert converge(Module(check_mode=True), original(path))["changed_files"] == [str(path)]
    assert path.read_text() == "ours\n"


def test_what_is_refused_leaves_the_original_kept(places: Path) -> None:
    path = places / "motd"
    path.write_text("the package's\n")
    take(path, "ours\n")
    blocked = {**file_entry.PLAIN, "path": str(places / "none" / "x"), "state": "link", "target": "y"}
    with pytest.raises(Failed):
        converge(Module(), original(path), blocked)
    assert path.read_text() == "ours\n"
    converge(Module(), original(path))
    assert path.read_text() == "the package's\n"


def test_in_a_directory_of_others_only_what_begins_as_ours_does_is_removed(places: Path) -> None:
    (places / "shop.worker@blue.service").write_text("# Written by Shipshape. To add to it: …\n", encoding="utf-8")
    (places / "shop.print.service").write_text("[Unit]\nDescription=Somebody's own\n", encoding="utf-8")
    purge = {"directory": str(places), "pattern": "shop.*.service", "begins": "# Written by Shipshape.", "reload": None}
    found = file_set.expand_purge(Module(), [purge], [])
    assert [entry.path for entry in found] == [str(places / "shop.worker@blue.service")]
    everything = file_set.expand_purge(Module(), [{**purge, "begins": None}], [])
    assert len(everything) == 2


def test_systemd_reads_a_new_drop_in_although_it_says_that_it_need_not(places: Path) -> None:
    (places / "shop.service.d").mkdir()
    path = str(places / "shop.service.d" / "ours.conf")
    spec = {**file_set.PLAIN, "path": path, "restart": "shop.service"}
    module: Any = Module()
    entry = file_set.Entry(module, spec, "[Service]\n")
    file_set.converge(module, [entry])
    assert module.ran.index("systemctl daemon-reload") < module.ran.index("systemctl restart shop.service")
    # Of a run that was cut off in between, the next one does both.
    again: Any = Module()
    owed_actions.remember(["restart shop.service"])
    file_set.converge(again, [file_set.Entry(again, spec, "[Service]\n")])
    assert "systemctl daemon-reload" in again.ran and "systemctl restart shop.service" in again.ran
    quiet: Any = Module()
    file_set.converge(quiet, [file_set.Entry(quiet, spec, "[Service]\n")])
    assert not [command for command in quiet.ran if "show" not in command]
