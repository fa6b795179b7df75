"""An app's environment: what reaches the process, and what never reaches a log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_env

NASTY = {
    "QUOTES": "a \"double\" and a 'single'",
    "SHELL": "$HOME `id` $(id) \\ \\n !",
    "LINES": "first\n  second\n",
    "SPACES": "  around  ",
    "SIGNS": "# % = ; & | ä €",
    "EMPTY": "",
}


def test_the_file_says_exactly_what_was_meant_to_a_shell_which_quotes_as_systemd_does(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(app_env.to_file(NASTY), encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", f"set -a; . {path}; env -0"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    seen = dict(entry.partition("=")[::2] for entry in done.stdout.decode().split("\0") if entry)
    assert {name: seen.get(name) for name in NASTY} == NASTY


def test_the_file_is_read_back_as_it_was_written() -> None:
    assert app_env.from_file(app_env.to_file(NASTY)) == NASTY


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SECRET_KEY", "short-one", "short-one"),
        ("TWILIO_ACCOUNT_SID", "AC-secret", "AC-secret"),
        ("DATABASE_URL", "postgresql://shop:p%40ssword@db/shop", "p%40ssword"),
        ("DATABASE_URL", "postgresql://shop:p%40ssword@db/shop", "password 'p@ssword' is wrong"),
        ("SOMETHING", "a8d0c2f14b6e", "a8d0c2f14b6e"),
        ("PRIVATE_PEM", "-----BEGIN-----\nMIIEvQIBADANBgkq\n-----END-----", "  MIIEvQIBADANBgkq"),
        ("API_TOKEN", 'with "quotes"', json.dumps({"API_TOKEN": 'with "quotes"'})),
        ("API_TOKEN", "back\\slash", repr({"API_TOKEN": "back\\slash"})),
    ],
)
def test_a_secret_is_hidden_however_a_log_shows_it(name: str, value: str, shown: str) -> None:
    hidden = app_env.scrub(f"before {shown} after", {name: value})
    for part in [value, "p%40ssword", "p@ssword", "MIIEvQIBADANBgkq", json.dumps(value)[1:-1], repr(value)[1:-1]]:
        assert part not in hidden
    assert hidden.startswith("before ") and hidden.endswith(" after")
    assert app_env.HIDDEN in hidden


@pytest.mark.parametrize(
    ("name", "value"), [("HOST", "127.0.0.1"), ("PORT", "20010"), ("ENVIRONMENT", "production"), ("DEBUG", "1")]
)
def test_what_is_no_secret_stays_readable(name: str, value: str) -> None:
    line = f"INFO: {value} is used, 200 OK"
    assert app_env.scrub(line, {name: value}) == line


def test_the_login_in_a_repository_url_is_not_shown() -> None:
    assert app_env.without_password("https://user:token@git.test/shop.git") == "https://git.test/shop.git"
    assert app_env.without_password("fatal: https://token@git.test/a.git: no") == "fatal: https://git.test/a.git: no"
    assert app_env.without_password("git@git.test:shop.git") == "git@git.test:shop.git"
