"""The releases of one app on a droplet: where they lie, what is known of them, which one is live.

/srv/<app>/repository            bare mirror of the app's git repository
/srv/<app>/cache/                what builds keep for the next one; home of the app's user while it builds
/srv/<app>/venvs/<key>/          a virtualenv, shared by the releases with the same requirements; <key>.json: complete
/srv/<app>/releases/<id>/        src or public, env, venv, scripts (run, migrate, seed, process.*, cron.*, hook.*), and
                                 release.json (written last: no half releases)
/srv/<app>/current               link to the live release
/srv/<app>/blue, green           of an app with a process: link to the release that runs under that colour's unit
/srv/<app>/activation.json       the release that was last found healthy, its colour, and the unit it ran under
/srv/<app>/deploy.lock           who is deploying it
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from typing import Any, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, read_record, write_record

UNITS = "/etc/systemd/system"
COLOURS = ("blue", "green")
RELEASE_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{7,40}")


def other(colour: str) -> str:
    """The colour to start the next release under."""
    return "green" if colour == "blue" else "blue"


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
        self.cache = os.path.join(directory, "cache")
        self.current_link = os.path.join(directory, "current")
        self.activation_path = os.path.join(directory, "activation.json")
        self.planned_path = os.path.join(directory, "planned.json")
        self.lock_path = os.path.join(directory, "deploy.lock")
        #: What a droplet has that was set up when an app had one unit.
        self.single_unit = app + ".service"
        self.units = UNITS

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

    def find(self, wanted: str) -> Release:
        """The release that is meant (`current` and `previous` are ones, too), or a message with those there are."""
        release = (
            self.previous() if wanted == "previous" else self.release(self.current if wanted == "current" else wanted)
        )
        if release is not None:
            return release
        kept = ", ".join(f"{entry.id} ({self.state(entry)})" for entry in self.releases()) or "none"
        if wanted == "previous":
            message = f"there is no earlier release to go back to; releases here: {kept}"
        else:
            message = f"there is no release {wanted}; releases here: {kept}"
        raise AppError(self.app, "release", message)

    def migrations_after(self, release: Release) -> list[str]:
        """The releases after that one, up to the live one, that have migrated the database."""
        later = [r for r in self.releases() if release.id < r.id <= self.current]
        return [r.id for r in later if r.record.get("migrated")]

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

    @property
    def single(self) -> bool:
        """Whether the app's one unit of old is still there."""
        return os.path.exists(os.path.join(self.units, self.single_unit))

    @property
    def colour(self) -> str:
        """The colour that serves, or nothing before the first release. The one unit of old has blue's port."""
        colour = str(self.activation.get("colour") or "")
        return colour if colour in COLOURS else ("blue" if self.single and self.current else "")

    def unit(self, colour: str) -> str:
        return f"{self.app}@{colour}.service"

    @property
    def live_unit(self) -> str:
        """The unit that the live release runs under."""
        return self.unit(self.colour) if self.activation.get("colour") or not self.single else self.single_unit

    def idle_units(self) -> list[str]:
        """The units that may run, but are not the live one's: of a switch that was not brought to its end."""
        units = [self.unit(colour) for colour in COLOURS] + ([self.single_unit] if self.single else [])
        return [unit for unit in units if unit != self.live_unit]

    def release_of(self, colour: str) -> str:
        """Id of the release that a colour's link leads to, or nothing."""
        try:
            return os.path.basename(os.readlink(os.path.join(self.directory, colour)))
        except OSError:
            return ""

    def point(self, link: str, name: str) -> None:
        """Lead `current`, `blue` or `green` to a release, or to none, in one step."""
        path = os.path.join(self.directory, link)
        temporary = path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if not name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        os.symlink(os.path.join("releases", name), temporary)
        os.replace(temporary, path)

    def switch(self, name: str) -> None:
        """Make a release the live one, or none."""
        self.point("current", name)

    def leftovers(self) -> list[Release]:
        """What a run that was cut off has left: half-made releases, and whole ones that were never live."""
        live = {self.current, self.healthy, *(self.release_of(colour) for colour in COLOURS)}
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

    def unit_digest(self, colour: str, others: Sequence[str] = ()) -> str:
        """Fingerprint of a colour's unit, and of those of its other processes, as they are on disk."""
        digest = hashlib.sha256()
        try:
            for unit in (self.unit(colour), *others):
                with open(os.path.join(self.units, unit), "rb") as stream:
                    digest.update(stream.read())
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def confirm(self, name: str, colour: str = "", others: Sequence[str] = ()) -> None:
        """This release is live and healthy, under that colour if it has a process."""
        release = self.release(name)
        if release is not None:
            release.note(activated=release.activated or now(), rolled_back="")
        unit = self.unit_digest(colour, others) if colour else ""
        write_record(self.activation_path, {"release": name, "colour": colour, "unit": unit, "at": now()})

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
