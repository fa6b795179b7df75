"""What Docker's clean-up takes, and what it leaves."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "roles" / "docker" / "files" / "shipshape-docker-cleanup"
LOADER = SourceFileLoader("docker_cleanup", str(PROGRAM))
spec = importlib.util.spec_from_loader("docker_cleanup", LOADER)
assert spec is not None
cleanup = importlib.util.module_from_spec(spec)
LOADER.exec_module(cleanup)

LONG_AGO, LATELY = "2026-11-01T03:00:00.123456789Z", "2026-11-21T20:00:00.5+01:00"
BEFORE = cleanup.moment("2026-11-15T03:00:00Z")


def container(status: str, finished: str, **labels: str) -> dict[str, Any]:
    return {"Id": "c", "State": {"Status": status, "FinishedAt": finished}, "Config": {"Labels": labels or None}}


def image(*tags: str, created: str = LONG_AGO, tagged: str = LONG_AGO, digests: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "Id": "sha256:1",
        "RepoTags": list(tags),
        "RepoDigests": list(digests),
        "Created": created,
        "Metadata": {"LastTagTime": tagged},
    }


@pytest.mark.parametrize(
    ("found", "goes"),
    [
        (container("exited", LONG_AGO), True),
        (container("exited", LATELY), False),
        (container("running", LONG_AGO), False),
        (container("paused", LONG_AGO), False),
        (container("created", "0001-01-01T00:00:00Z"), False),
        (container("exited", LONG_AGO, **{"shipshape.app": "ocr"}), False),
        (container("exited", LONG_AGO, **{"com.docker.compose.project": "board"}), False),
    ],
)
def test_a_container_goes_that_has_ended_long_ago_and_is_nobodys(found: dict[str, Any], goes: bool) -> None:
    assert cleanup.old_containers([found], BEFORE) == (["c"] if goes else [])


@pytest.mark.parametrize(
    ("found", "goes"),
    [
        (image("python:3.12"), ["python:3.12"]),
        (image("a:1", "b:1"), ["a:1", "b:1"]),
        (image(), ["sha256:1"]),
        (image(digests=("a@sha256:2",)), ["a@sha256:2"]),
        (image("a:1", created=LATELY), []),
        (image("a:1", tagged=LATELY), []),
        (image("registry.test:5000/ocr:shipshape-ocr-20261101T030000-abc"), []),
        (image("ocr:1.4", "ocr:shipshape-ocr-20261101T030000-abc"), []),
        (image("shipshape-ocr:1"), ["shipshape-ocr:1"]),
    ],
)
def test_an_image_goes_that_no_container_and_no_release_needs(found: dict[str, Any], goes: list[str]) -> None:
    assert cleanup.old_images([found], set(), BEFORE) == goes
    assert cleanup.old_images([found], {"sha256:1"}, BEFORE) == []
