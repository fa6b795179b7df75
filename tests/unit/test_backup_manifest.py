"""The manifest: each thing that has state, and where its copy is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "roles" / "backup" / "files"))

import shipshape_backup.__main__ as program
import shipshape_backup.manifest as manifest
import shipshape_backup.store as store
import shipshape_backup.unattended as unattended


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Settings:
    for path in (
        "volumes/photos/_data/a",
        "volumes/cache/_data/b",
        "apps/shop/uploads/c",
        "redis/sessions/aof",
        "srv/shop/releases/1",
        "srv/photos/d",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "redis" / "cache").mkdir()
    places = [
        {"kind": "volume of Docker", "path": f"{tmp_path}/volumes/*/_data"},
        {"kind": "state of an app", "path": f"{tmp_path}/apps/*", "anew": "made anew"},
        {"kind": "data of Redis", "path": f"{tmp_path}/redis/*"},
        {"kind": "releases of an app", "path": f"{tmp_path}/srv/*/releases", "anew": "made anew by a deploy"},
        {"kind": "files", "path": f"{tmp_path}/srv/*"},
        {"kind": "certificates", "path": f"{tmp_path}/letsencrypt"},
    ]
    values = {
        "repository": "s3:there", "host": "shop-1", "databases": ["shop", "gone"], "exclude": [], "keep": {"daily": 7},
        "paths": [f"{tmp_path}/volumes/photos", f"{tmp_path}/apps/shop/uploads", "/etc/hostname"], "mail": "",
        "server_copy": "", "places": places, "timeout_minutes": 1, "jitter_minutes": 0, "cache_directory": "",
        "state_directory": str(tmp_path), "lock_file": str(tmp_path / "lock"),
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "credentials.env").write_text("")
    monkeypatch.setattr(manifest, "psql", lambda statement: "reports\nshop")
    return store.Settings(tmp_path)


def copies(settings: store.Settings) -> dict[str, str]:
    rows = manifest.state(settings)
    return {row["what"].replace(str(settings.state), ""): row["copy"] for row in rows}


def test_each_thing_that_has_state_is_listed_with_where_its_copy_is(settings: store.Settings) -> None:
    assert copies(settings) == {
        "gone": "dump in s3:there",
        "reports": "none",
        "shop": "dump in s3:there",
        "/volumes/cache/_data": "none",
        "/volumes/photos/_data": "files in s3:there",
        "/apps/shop": f"files in s3:there, of {settings.state}/apps/shop/uploads alone",
        "/redis/sessions": "none",
        "/srv/shop/releases": "made anew by a deploy",
        "/srv/photos": "none",
        "/etc/hostname": "files in s3:there",
    }
    assert manifest.uncovered(manifest.state(settings)) == [
        "database reports",
        f"volume of Docker {settings.state}/volumes/cache/_data",
        f"data of Redis {settings.state}/redis/sessions",
        f"files {settings.state}/srv/photos",
    ]


def test_a_copy_of_the_whole_server_has_every_database(settings: store.Settings) -> None:
    settings.server_copy = "any moment of 7 days"
    found = copies(settings)
    assert (found["reports"], found["shop"]) == ("any moment of 7 days", "dump in s3:there; any moment of 7 days")


def test_where_no_server_answers_the_declared_databases_are_listed(settings: store.Settings, monkeypatch: Any) -> None:
    def down(statement: str) -> str:
        raise unattended.Failure("PostgreSQL says: no")

    monkeypatch.setattr(manifest, "psql", down)
    assert {"shop", "gone"} <= set(copies(settings)) and "reports" not in copies(settings)


def test_the_command_says_it_to_people_and_to_programs(settings: store.Settings, capsys: Any) -> None:
    assert program.main(["--configuration", str(settings.state), "manifest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["database", "reports", "none"] and lines[-1] == "4 of 10 have no copy"
    assert program.main(["--configuration", str(settings.state), "manifest", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["state"]) == 10
