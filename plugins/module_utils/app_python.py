"""A virtualenv for a release of a python app. Releases with the same requirements share one, which is never changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time

from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    last_lines,
    read_record,
    run,
    write_record,
)

ATTEMPTS = 3
_INCLUDE = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[\s=]+(\S+)")
_LOCAL = re.compile(r"^\s*(?:-e\b|--editable\b|\.|/|file:)|@\s*file:")


class Requirements:
    """What a source folder says it needs, with all files it includes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.arguments: list[str] = []
        self.texts: dict[str, str] = {}
        #: Needs the code itself, which is another one in each commit.
        self.local = False
        if os.path.isfile(os.path.join(source, "requirements.txt")):
            self.arguments = ["--requirement", "requirements.txt"]
            self._read("requirements.txt")
        elif os.path.isfile(os.path.join(source, "pyproject.toml")) or os.path.isfile(os.path.join(source, "setup.py")):
            self.arguments, self.local = ["."], True

    def _read(self, name: str) -> None:
        path = os.path.realpath(os.path.join(self.source, name))
        inside = path.startswith(os.path.realpath(self.source) + os.sep)
        if name in self.texts or not inside or not os.path.isfile(path):
            return  # pip itself says what is wrong with it
        with open(path, encoding="utf-8", errors="replace") as stream:
            self.texts[name] = stream.read()
        for line in self.texts[name].splitlines():
            include = _INCLUDE.match(line)
            if include:
                self._read(os.path.join(os.path.dirname(name), include.group(1)))
            elif _LOCAL.search(line):
                self.local = True

    def key(self, interpreter: str, commit: str) -> str:
        """Names the virtualenv: the same key, the same packages."""
        parts = [interpreter, commit if self.local else "", *self.arguments]
        for name in sorted(self.texts):
            parts += [name, self.texts[name]]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]


def interpreter(app: str, account: Account) -> str:
    code, output = run(account, ["python3", "-c", "import sys; print(sys.version)"])
    if code != 0:
        raise AppError(app, "virtualenv", f"python3 does not run on this host:\n{last_lines(output)}")
    return str(output)


def _install(app: str, account: Account, venv: str, needs: Requirements, lock: int | None) -> None:
    # What is compiled may try out what it has made, and from a hardened droplet's /tmp no program starts.
    pip = ["env", f"TMPDIR={venv}", os.path.join(venv, "bin", "python"), "-m", "pip", "install"]
    pip += ["--no-input", "--disable-pip-version-check"]
    output = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(5 * attempt)
        code, output = run(
            account, [*pip, "--no-cache-dir", *needs.arguments], cwd=needs.source, timeout=1800, lock=lock
        )
        if code == 0:
            return
        if app_disk.is_full(output):
            break
    raise AppError(app, "requirements", f"pip failed {attempt + 1} times in {needs.source}:\n{last_lines(output, 15)}")


def ensure_venv(store: Store, account: Account, source: str, commit: str, lock: int | None = None) -> tuple[str, bool]:
    """(key of the virtualenv for this source, whether it had to be made)."""
    needs = Requirements(source)
    key = needs.key(interpreter(store.app, account), commit)
    venv, record = os.path.join(store.venvs, key), os.path.join(store.venvs, key + ".json")
    if read_record(record) and os.path.isdir(venv):
        return key, False
    # Without its record it is what an interrupted run has left, and nobody knows what is missing in it.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(venv)
    os.mkdir(venv, 0o755)
    os.chown(venv, account.uid, account.gid)
    try:
        code, output = run(account, ["python3", "-m", "venv", venv], lock=lock)
        if code != 0:
            raise AppError(store.app, "virtualenv", f"cannot create {venv}:\n{last_lines(output)}")
        if needs.arguments:
            _install(store.app, account, venv, needs, lock)
        write_record(record, {"created": now(), "requirements": sorted(needs.texts)})
    except (AppError, OSError) as error:
        # In words while it is still full.
        said = error if isinstance(error, AppError) else AppError(store.app, "virtualenv", str(error))
        shutil.rmtree(venv)
        raise said from error
    return key, True
