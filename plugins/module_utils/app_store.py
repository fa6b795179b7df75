"""The releases of one app on a droplet: where they lie, what is known of them, which one is live.

/srv/<app>/repository            bare mirror of the app's git repository
/srv/<app>/venvs/<key>/          a virtualenv, shared by the releases with the same requirements; <key>.json: complete
/srv/<app>/releases/<id>/        src or public, env, run, migrate, venv, release.json (written last: no half releases)
/srv/<app>/current               link to the live release
/srv/<app>/activation.json       the release that was last found healthy, and the unit it ran under
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import read_record, write_record

UNITS = "/etc/systemd/system"
RELEASE_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{7,40}")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Release:
    """One release and its record. Without a record it is a half-made one."""

    def __init__(self, directory: str, name: str) -> None:
        self.id = name
        self.path = os.path.join(directory, name)
        self.record: dict[str, Any] = read_record(os.path.join(self.path, "release.json")) or {}

    @property
    def complete(self) -> bool:
        return bool(self.record)

    @property
    def activated(self) -> str:
        return str(self.record.get("activated") or "")

    @property
    def rolled_back(self) -> str:
        return str(self.record.get("rolled_back") or "")

    @property
    def commit(self) -> str:
        return str(self.record.get("commit") or "")

    def note(self, **facts: Any) -> None:
        self.record.update(facts)
        write_record(os.path.join(self.path, "release.json"), self.record)

    def remove(self) -> None:
        # The record goes first: a removal that is cut short leaves a half-made release, which the next run clears.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, "release.json"))
        shutil.rmtree(self.path)


class Store:
    """All of one app's releases."""

    def __init__(self, app: str, directory: str) -> None:
        self.app = app
        self.directory = directory
        self.releases_directory = os.path.join(directory, "releases")
        self.repository = os.path.join(directory, "repository")
        self.venvs = os.path.join(directory, "venvs")
        self.current_link = os.path.join(directory, "current")
        self.activation_path = os.path.join(directory, "activation.json")
        self.planned_path = os.path.join(directory, "planned.json")
        self.unit = app + ".service"
        self.unit_path = os.path.join(UNITS, self.unit)

    def releases(self) -> list[Release]:
        """Every release on disk, oldest first, half-made ones among them."""
        try:
            names = sorted(name for name in os.listdir(self.releases_directory) if RELEASE_ID.fullmatch(name))
        except FileNotFoundError:
            return []
        return [Release(self.releases_directory, name) for name in names]

    def release(self, name: str) -> Release | None:
        """The complete release of that id."""
        return next((release for release in self.releases() if release.id == name and release.complete), None)

    def new_id(self, commit: str) -> str:
        """Sorts by time and shows the commit."""
        return "{}-{}".format(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), commit[:7])

    @property
    def current(self) -> str:
        """Id of the release that `current` points to, or nothing."""
        try:
            return os.path.basename(os.readlink(self.current_link))
        except OSError:
            return ""

    @property
    def activation(self) -> dict[str, Any]:
        return read_record(self.activation_path) or {}

    @property
    def healthy(self) -> str:
        """Id of the release that was last found healthy, when it is still there."""
        name = str(self.activation.get("release") or "")
        return name if name and self.release(name) else ""

    def switch(self, name: str) -> None:
        """Point `current` to a release, or to none, in one step."""
        if not name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.current_link)
            return
        temporary = self.current_link + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("releases", name), temporary)
        os.replace(temporary, self.current_link)

    def leftovers(self) -> list[Release]:
        """What a run that was cut off has left: half-made releases, and whole ones that were never live."""
        live = {self.current, self.healthy}
        return [release for release in self.releases() if release.id not in live and not release.activated]

    def previous(self) -> Release | None:
        """Where a rollback leads by itself: the newest release before the live one that was not given up."""
        older = [r for r in self.releases() if r.id < self.current and r.activated and not r.rolled_back]
        return older[-1] if older else None

    def state(self, release: Release) -> str:
        if release.id == self.current:
            return "live"
        if not release.complete or not release.activated:
            return "unfinished"
        return "rolled back" if release.rolled_back else "kept"

    def unit_digest(self) -> str:
        """Fingerprint of the unit as it is on disk."""
        try:
            with open(self.unit_path, "rb") as stream:
                return hashlib.sha256(stream.read()).hexdigest()
        except FileNotFoundError:
            return ""

    def confirm(self, name: str) -> None:
        """This release is live and healthy."""
        release = self.release(name)
        if release is not None:
            release.note(activated=release.activated or now(), rolled_back="")
        write_record(self.activation_path, {"release": name, "unit": self.unit_digest(), "at": now()})

    def plan(self, name: str) -> None:
        """The newest run means to build this release; one that is still at an earlier plan has been overtaken."""
        write_record(self.planned_path, {"release": name})

    def take_over(self) -> None:
        """Whatever an earlier run has planned and not built yet is not built any more: this run plans anew."""
        planned = (read_record(self.planned_path) or {}).get("release")
        if planned and self.release(planned) is None:
            self.plan("")

    def is_overtaken(self, name: str) -> bool:
        """Whether a later run has begun since: a controller died and its workers went on, or somebody was quicker."""
        planned = (read_record(self.planned_path) or {}).get("release")
        return planned is not None and planned != name

    def prune(self, keep: int) -> list[str]:
        """Remove the oldest releases beyond `keep`, never the live one nor the one a rollback needs."""
        previous = self.previous()
        protected = {self.current, previous.id if previous else ""}
        kept = 0
        removed = []
        for release in reversed(self.releases()):
            if release.id in protected or kept < keep - len(protected - {""}):
                kept += release.id not in protected
                continue
            release.remove()
            removed.append(release.id)
        self._prune_venvs()
        return removed

    def _prune_venvs(self) -> None:
        used = {str(release.record.get("venv") or "") for release in self.releases()}
        try:
            names = os.listdir(self.venvs)
        except FileNotFoundError:
            return
        for name in names:
            key = name[: -len(".json")] if name.endswith(".json") else name
            path = os.path.join(self.venvs, name)
            if key not in used:
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
