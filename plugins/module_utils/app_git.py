"""Where an app's code comes from: a git repository, mirrored on the droplet, asked and fetched as the app's user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

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


def explain(output: str) -> str:
    """What to do about the usual reasons for which a git server says no."""
    if "Could not resolve host" in output:
        return "the droplet cannot resolve that name; check source.git, and `resolvectl query` on the droplet"
    if "Permission denied (publickey" in output or "Host key verification failed" in output:
        return "over ssh the app's user needs a key and a known host of its own; take an https URL in source.git"
    if "could not read Username" in output or "Authentication failed" in output:
        return "the server wants a login for it, or there is no such repository; check source.git"
    if "server certificate verification failed" in output or "SSL certificate problem" in output:
        return "the droplet does not trust the server's certificate"
    if "not found" in output or "does not exist" in output or "does not appear to be a git repository" in output:
        return "there is no such repository; check source.git"
    return "check source.git and whether the droplet reaches the server"


def list_refs(app: str, account: Account, url: str) -> Refs:
    """Ask the server what it has."""
    output = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2 * attempt)
        code, output = run(account, ["git", "ls-remote", "--heads", "--tags", "--", url], timeout=60)
        if code == 0:
            return Refs(output)
    output = without_password(output)
    raise AppError(
        app, "source", f"git cannot list {without_password(url)}; {explain(output)}\n{last_lines(output, 5)}"
    )


class Mirror:
    """The bare copy of an app's repository on the droplet."""

    def __init__(self, app: str, account: Account, path: str, url: str, lock: int | None = None) -> None:
        self.app, self.account, self.path, self.url, self.lock = app, account, path, url, lock

    def _git(self, *arguments: str, timeout: int = 600) -> tuple[int, str]:
        command = ["git", "--git-dir", self.path, *arguments]
        result: tuple[int, str] = run(self.account, command, timeout=timeout, lock=self.lock)
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
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(3 * attempt)
            self._prepare()
            refs = [f"+{kind}*:{kind}*" for kind in (BRANCH, TAG)]
            code, output = self._git("fetch", "--quiet", "--prune", "--force", "--", self.url, *refs)
            if code == 0:
                return
            if any(word in output for word in TORN):
                shutil.rmtree(self.path)
        output = without_password(output)
        raise AppError(
            self.app,
            "fetch",
            f"git cannot fetch {without_password(self.url)}; {explain(output)}\n{last_lines(output, 5)}",
        )

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
