"""A full disk is said in words, with the place and what to do, and leaves nothing half-made."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_disk,
    app_git,
    app_lock,
    app_store,
    app_system,
    app_trail,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError

from tests.unit.app_tools import be_the_app_user, store_with

FULL = "No space left on device"
A = "20260101T000000Z-aaaaaaa"


def disk(monkeypatch: pytest.MonkeyPatch, free: dict[str, int], files: int = 9, size: int = 1000) -> None:
    """File systems at these places, with so many megabytes free of 1000."""

    def statvfs(path: str) -> Any:
        place = max((each for each in free if (path + "/").startswith(each.rstrip("/") + "/")), key=len)
        return SimpleNamespace(
            f_frsize=1 << 20, f_bavail=free[place], f_blocks=size, f_files=100, f_favail=files if place != "/" else 9
        )

    monkeypatch.setattr(app_disk, "directories", {"shop": "/srv/shop"})
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(os.path, "exists", lambda path: path in free)
    monkeypatch.setattr(os.path, "ismount", lambda path: path in free)


@pytest.mark.parametrize(
    "said",
    [
        "fatal: write error: No space left on device",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "tar: src/app.bin: Wrote only 512 of 10240 bytes: no space left on device",
        "tar: large: Wrote only 9728 of 10240 bytes",
        "npm ERR! code ENOSPC",
        "cp: error writing 'x': Disk quota exceeded",
    ],
)
def test_whoever_finds_the_disk_full_the_error_says_where_and_what_to_do(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, {"/": 400, "/srv": 0})
    lines = str(AppError("shop", "export", f"cannot unpack it:\n{said}")).splitlines()
    assert lines[0].startswith("shop: export: the disk of the droplet is full: /srv has 0 MB free of 1000 MB. Make")
    assert "keep_releases" in lines[0] and lines[-1] == said


def test_an_image_fills_the_disk_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, {"/": 400, "/var/lib/docker": 3, "/srv": 0})
    said = str(AppError("ocr", "pull", f"cannot fetch it: write /x: {FULL.lower()}"))
    assert "full: /var/lib/docker has 3 MB free of 1000 MB." in said


def test_a_program_that_has_tidied_up_by_now_needed_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, {"/": 120})
    assert "full: / has 120 MB free of 1000 MB, and more was needed" in str(AppError("shop", "fetch", FULL))


def test_a_build_that_fails_without_a_word_on_a_full_disk_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, {"/": 0})
    assert "the disk of the droplet is full" in str(AppError("shop", "build", "it said nothing"))
    assert str(AppError("shop", "health", "HTTP 500")) == "shop: health: HTTP 500"
    disk(monkeypatch, {"/": 40})
    assert str(AppError("shop", "build", "it said nothing")) == "shop: build: it said nothing"


def test_a_disk_may_be_full_of_files_that_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, {"/": 400, "/srv": 300}, files=0)
    assert "full: /srv can hold no more files" in str(AppError("shop", "build", FULL))


def test_another_machine_s_full_disk_in_an_app_s_log_is_not_the_droplet_s(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, {"/": 900})
    assert str(AppError("shop", "health", FULL)) == f"shop: health: {FULL}"


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, FULL)


def test_a_note_that_does_not_fit_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_the_app_user(monkeypatch)
    path = tmp_path / "release.json"
    app_system.write_record(str(path), {"a": 1})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=FULL):
        app_system.write_record(str(path), {"a": 2})
    assert (os.listdir(tmp_path), app_system.read_record(str(path))) == (["release.json"], {"a": 1})


def test_a_step_that_fails_on_a_full_disk_keeps_its_message_and_the_lock_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_the_app_user(monkeypatch)
    monkeypatch.setattr(app_trail, "TRAIL", str(tmp_path / "log" / "deploys.log"))
    store = store_with(tmp_path, {"id": A}, current=A)
    app_lock.acquire(store, {"run": "7:1", "controller": "laptop", "who": "ann", "why": "deploy", "alive": None})
    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "write", refuse)
    app_lock.hold(store, "7:1")
    with pytest.raises(AppError, match="shop: build: make: it failed"), app_trail.step("shop", A, "build", "ann"):
        raise AppError("shop", "build", "make: it failed")
    assert app_lock.who(app_store.Store("shop", str(tmp_path))) == "ann"


def test_git_is_not_asked_again_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = be_the_app_user(monkeypatch)
    asked: list[list[str]] = []

    def run(_account: Any, command: list[str], **_: Any) -> tuple[int, str]:
        asked.append(command)
        return 128, f"fatal: write error: {FULL}"

    monkeypatch.setattr(app_git, "run", run)
    mirror = app_git.Mirror("shop", account, str(tmp_path), "https://git.test/shop.git")
    monkeypatch.setattr(mirror, "_prepare", lambda: None)
    disk(monkeypatch, {"/": 0})
    with pytest.raises(AppError, match=r"^shop: fetch: the disk of the droplet is full: / has 0 MB free"):
        mirror.fetch()
    assert len(asked) == 1
    assert app_disk.is_full(FULL)
