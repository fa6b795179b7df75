"""Where an app's files come from when they are an archive: fetched over HTTPS, known by its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from typing import Iterator

from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk
from ansible_collections.shipshape.droplet.plugins.module_utils.app_env import without_password
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    last_lines,
    run,
)

ATTEMPTS = 3
TIMEOUT = 60
CHUNK = 1 << 20


class Archive:
    """One archive, whose SHA-256 is what a commit is to a repository."""

    def __init__(self, app: str, account: Account, directory: str, url: str, lock: int | None = None) -> None:
        self.app, self.account, self.directory, self.url, self.lock = app, account, directory, url, lock

    @contextlib.contextmanager
    def _folder(self) -> Iterator[str]:
        """One to work in, root's: the app's user must not lead our writing elsewhere. It is gone afterwards."""
        folder = os.path.join(self.directory, "archive")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)  # of a run that was killed
        os.mkdir(folder, 0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def export(self, checksum: str, path: str, target: str) -> None:
        """Fetch it, see that it is the one that is meant, and put a folder of it into `target`."""
        with self._folder() as folder:
            file = os.path.join(folder, "file")
            self._fetch(file, checksum)
            unpacked = os.path.join(folder, "unpacked")
            os.mkdir(unpacked, 0o750)
            os.chown(unpacked, self.account.uid, self.account.gid)
            self._unpack(file, unpacked)
            self._take(unpacked, path, target)

    def _fetch(self, file: str, checksum: str) -> None:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(3 * attempt)
            try:
                found = self._download(file)
            except urllib.error.HTTPError as error:
                problem = f"the server answers {error.code} {error.reason}"
                if error.code in (401, 403, 404, 410):
                    break
            except OSError as error:  # URLError among them
                problem = str(getattr(error, "reason", error)) or type(error).__name__
                if app_disk.is_full(problem):
                    break
            else:
                if found == checksum:
                    return
                # Not tried again: what is not the archive that was meant does not become it.
                raise AppError(
                    self.app,
                    "fetch",
                    f"{without_password(self.url)} has the checksum sha256:{found}, and source.checksum is"
                    f" sha256:{checksum}: it is another archive, or was changed. Nothing of it was used",
                )
        raise AppError(self.app, "fetch", f"cannot fetch {without_password(self.url)}: {problem}; check source.archive")

    def _download(self, file: str) -> str:
        """Write what the server sends; returns its SHA-256."""
        digest = hashlib.sha256()
        request = urllib.request.Request(self.url, headers={"User-Agent": "shipshape"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(file, "wb") as stream:
            while True:
                data = answer.read(CHUNK)
                if not data:
                    break
                digest.update(data)
                stream.write(data)
        return digest.hexdigest()

    def _run(self, command: list[str]) -> tuple[int, str]:
        result: tuple[int, str] = run(self.account, command, lock=self.lock)
        return result

    def _unpack(self, file: str, folder: str) -> None:
        """As the app's user; tar and Python's zipfile leave no path out of the folder."""
        with open(file, "rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
        tar = ["tar", "--extract", "--no-same-owner", "--no-same-permissions", "--file", file, "--directory", folder]
        code, said = self._run(["python3", "-m", "zipfile", "-e", file, folder] if zipped else tar)
        if code != 0:
            said = f"cannot unpack {without_password(self.url)} (tar, also compressed, or zip):\n{last_lines(said, 5)}"
            raise AppError(self.app, "export", said)

    def _take(self, unpacked: str, path: str, target: str) -> None:
        inside = os.path.realpath(unpacked)
        source = os.path.realpath(os.path.join(unpacked, path))
        if (source != inside and not source.startswith(inside + os.sep)) or not os.path.isdir(source):
            folders = ", ".join(sorted(entry.name for entry in os.scandir(unpacked) if entry.is_dir())) or "none"
            raise AppError(
                self.app,
                "source",
                f"folder {path!r} (source.path) is not in {without_password(self.url)}; folders there: {folders}",
            )
        code, said = self._run(["cp", "--archive", "--no-target-directory", "--", source, target])
        if code != 0:
            raise AppError(self.app, "export", f"cannot put the files into place:\n{last_lines(said, 5)}")
