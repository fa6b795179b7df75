"""Stand-ins with which the steps of a deploy run on any machine, by any user."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_git, app_store, app_system

WHO = {
    "GIT_AUTHOR_NAME": "T",
    "GIT_AUTHOR_EMAIL": "t@t.test",
    "GIT_COMMITTER_NAME": "T",
    "GIT_COMMITTER_EMAIL": "t@t.test",
}


def be_the_app_user(monkeypatch: pytest.MonkeyPatch) -> app_system.Account:
    """Commands run as whoever runs the tests, and files stay theirs."""
    for module in (app_system, app_git):
        monkeypatch.setattr(module, "as_user", lambda _account, command: list(command))
    monkeypatch.setattr(os, "chown", lambda *_arguments: None)
    monkeypatch.setattr(os, "fchown", lambda *_arguments: None)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setattr(app_git, "time", SimpleNamespace(sleep=lambda _seconds: None))
    return app_system.Account(pwd.getpwuid(os.getuid()).pw_name)


def git(where: Path, *arguments: str) -> str:
    environment = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=where, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(where: Path, files: dict[str, str], message: str = "a change") -> str:
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text, encoding="utf-8")
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", message)
    return git(where, "rev-parse", "HEAD")


def repository(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch", "main")
    return path


def store_with(directory: Path, *releases: dict[str, Any], current: str = "", colour: str = "") -> app_store.Store:
    """A store with complete releases of those ids and records."""
    store = app_store.Store("shop", str(directory))
    for facts in releases:
        path = Path(store.releases_directory, facts["id"])
        path.mkdir(parents=True)
        record = {"commit": "c" * 40, "activated": "2026-01-01T00:00:00Z", "rolled_back": "", **facts}
        app_system.write_record(str(path / "release.json"), record)
    if current:
        store.switch(current)
        store.confirm(current, colour)
    return store
