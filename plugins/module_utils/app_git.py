"""Where an app's code comes from: a git repository, mirrored on the droplet, asked and fetched as the app's user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk
from ansible_collections.shipshape.droplet.plugins.module_utils.app_deploy_key import Access
from ansible_collections.shipshape.droplet.plugins.module_utils.app_env import without_password
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    as_user,
    environment,
    last_lines,
    run,
)

FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
BRANCH, TAG = "refs/heads/", "refs/tags/"
ATTEMPTS = 3
# A repository that a killed git has left locked or torn is only a copy, and is fetched anew.
TORN = (
    "File exists.",
    "not a git repository",
    "does not appear to be a git repository",
    "corrupt",
    "bad object",
    "loose object",
)
#: What another attempt does not change; a server may ban who knocks again and again.
FINAL = ("Permission denied", "Host key verification failed", "could not read Username", "Authentication failed")
MISSING = ("not found", "does not exist", "does not appear to be a git repository")


class Refs:
    """The branches and tags of a repository."""

    def __init__(self, listing: str) -> None:
        self.commits: dict[str, str] = {}
        for line in listing.splitlines():
            commit, _, name = line.partition("\t")
            if FULL_COMMIT.fullmatch(commit) and name:
                self.commits[name] = commit

    def find(self, version: str) -> str:
        """The commit a branch or tag stands for; a tag goes first, as git itself has it."""
        # An annotated tag is an object of its own; `^{}` is the commit it is about.
        for name in (TAG + version + "^{}", TAG + version, BRANCH + version):
            if name in self.commits:
                return self.commits[name]
        return ""

    def names(self, prefix: str) -> list[str]:
        return [name[len(prefix) :] for name in self.commits if name.startswith(prefix) and not name.endswith("^{}")]

    def describe(self) -> str:
        branches, tags = self.names(BRANCH), self.names(TAG)
        if not branches and not tags:
            return "it has no commits yet"
        parts = [
            "branches " + ", ".join(branches[:8]) if branches else "",
            "tags " + ", ".join(tags[-8:]) if tags else "",
        ]
        return "it has " + " and ".join(part for part in parts if part)


def explain(output: str, url: str = "", access: Access | None = None) -> str:
    """What to do about the usual reasons for which a git server says no."""
    over_ssh = str((access or Access()).explain(output, url))
    if over_ssh:
        return over_ssh
    if "Could not resolve host" in output:
        return "the droplet cannot resolve that name; check source.git, and `resolvectl query` on the droplet"
    if "could not read Username" in output or "Authentication failed" in output:
        return "the server wants a login for it, or there is no such repository; check source.git"
    if "server certificate verification failed" in output or "SSL certificate problem" in output:
        return "the droplet does not trust the server's certificate"
    if any(words in output for words in MISSING):
        return "there is no such repository; check source.git"
    return "check source.git and whether the droplet reaches the server"


def refused(app: str, step: str, verb: str, url: str, output: str, access: Access) -> AppError:
    """The message for the operator when a server said no."""
    output = without_password(output)
    why = explain(output, url, access)
    return AppError(app, step, f"git cannot {verb} {without_password(url)}; {why}\n{last_lines(output, 5)}")


def list_refs(app: str, account: Account, url: str, access: Access | None = None) -> Refs:
    """Ask the server what it has."""
    access, output = access or Access(), ""
    with access.environment(app, account, url) as extra:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(2 * attempt)
            asked = ["git", "ls-remote", "--heads", "--tags", "--", url]
            code, output = run(account, asked, timeout=60, extra=extra)
            if code == 0:
                return Refs(output)
            if app_disk.is_full(output) or any(words in output for words in (*FINAL, *MISSING)):
                break
    raise refused(app, "source", "list", url, output, access)


class Mirror:
    """The bare copy of an app's repository on the droplet."""

    def __init__(
        self, app: str, account: Account, path: str, url: str, lock: int | None = None, access: Access | None = None
    ) -> None:
        self.app, self.account, self.path, self.url, self.lock = app, account, path, url, lock
        self.access = access or Access()

    def _git(self, *arguments: str, extra: dict[str, str] | None = None) -> tuple[int, str]:
        command = ["git", "--git-dir", self.path, *arguments]
        result: tuple[int, str] = run(self.account, command, timeout=600, lock=self.lock, extra=extra)
        return result

    def commit(self, version: str) -> str:
        """The commit of that name that is already here, or nothing."""
        if not os.path.isdir(self.path):
            return ""
        code, output = self._git("rev-parse", "--verify", "--quiet", version + "^{commit}")
        return output if code == 0 and FULL_COMMIT.fullmatch(output) else ""

    def _prepare(self) -> None:
        if not os.path.isdir(self.path):
            os.mkdir(self.path, 0o700)
            os.chown(self.path, self.account.uid, self.account.gid)
        if not os.path.isfile(os.path.join(self.path, "HEAD")):
            code, output = run(self.account, ["git", "init", "--quiet", "--bare", self.path], lock=self.lock)
            if code != 0:
                raise AppError(self.app, "fetch", f"cannot create {self.path}:\n{last_lines(output)}")

    def fetch(self) -> None:
        """Bring the copy up to date."""
        output = ""
        refs = [f"+{kind}*:{kind}*" for kind in (BRANCH, TAG)]
        with self.access.environment(self.app, self.account, self.url) as extra:
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(3 * attempt)
                self._prepare()
                arguments = ["fetch", "--quiet", "--prune", "--force", "--", self.url, *refs]
                code, output = self._git(*arguments, extra=extra)
                if code == 0:
                    return
                if app_disk.is_full(output) or any(words in output for words in FINAL):
                    break
                if any(word in output for word in TORN):
                    shutil.rmtree(self.path)
        raise refused(self.app, "fetch", "fetch", self.url, output, self.access)

    def export(self, commit: str, path: str, target: str) -> None:
        """Write one folder of a commit, without any history, into `target`, which the app's user owns."""
        tree = f"{commit}^{{tree}}" if path in ("", ".") else f"{commit}:{path}"
        code, kind = self._git("cat-file", "-t", tree)
        if code != 0 or kind != "tree":
            _code, listing = self._git("ls-tree", "-d", "--name-only", commit)
            folders = ", ".join(listing.splitlines()) or "none"
            raise AppError(
                self.app,
                "source",
                f"folder {path!r} (source.path) is not in commit {commit[:7]} of {without_password(self.url)}; "
                f"folders there: {folders}",
            )
        archive = ["git", "--git-dir", self.path, "archive", "--format=tar", tree]
        extract = ["tar", "--extract", "--file=-", "--no-same-owner", "--directory", target]
        env = environment(self.account)
        passed = () if self.lock is None else (self.lock,)
        with subprocess.Popen(
            as_user(self.account, archive),
            env=env,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=passed,
        ) as packer:
            done = subprocess.run(
                as_user(self.account, extract),
                env=env,
                cwd="/",
                stdin=packer.stdout,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=passed,
                check=False,
            )
            said = packer.stderr.read() if packer.stderr else b""
        if packer.returncode != 0 or done.returncode != 0:
            raise AppError(
                self.app,
                "export",
                "cannot unpack {}:\n{}".format(tree, last_lines((said + done.stdout).decode("utf-8", "replace"))),
            )
