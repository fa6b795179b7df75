"""Serve a directory as a git repository: each publication is a commit on top of the one before."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab import settings
from tests.lab.engine import LabError, docker, exclusive

BRANCH = "main"
# Whatever the user has configured, signing or hooks, is not for the lab's commits.
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Shipshape lab",
    "GIT_AUTHOR_EMAIL": "lab@shipshape.invalid",
    "GIT_COMMITTER_NAME": "Shipshape lab",
    "GIT_COMMITTER_EMAIL": "lab@shipshape.invalid",
}


def publish(directory: Path, repository: str) -> str:
    """Commit the directory's content to https://git.test/REPOSITORY.git and return the commit."""
    if not directory.is_dir():
        raise LabError(f"{directory} is not a directory: there is nothing to publish")
    with exclusive("publish"):
        work_tree = settings.STATE / "git" / repository
        _copy(directory, work_tree)
        if not (work_tree / ".git").exists():
            _git(work_tree, "init", "--quiet", f"--initial-branch={BRANCH}")
        _git(work_tree, "add", "--all", "--force")
        if _git(work_tree, "status", "--porcelain"):
            _git(work_tree, "commit", "--quiet", "--message", f"Publish {directory.name}")
        _serve(work_tree, repository)
        return _git(work_tree, "rev-parse", "HEAD").decode().strip()


def _copy(directory: Path, work_tree: Path) -> None:
    """The work tree becomes the directory, what a run of its tests has left aside."""
    work_tree.mkdir(parents=True, exist_ok=True)
    for old in work_tree.iterdir():
        if old.name != ".git":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    left_aside = shutil.ignore_patterns(".git", "__pycache__", "*_cache", ".venv", "node_modules")
    shutil.copytree(directory, work_tree, symlinks=True, dirs_exist_ok=True, ignore=left_aside)


def _serve(work_tree: Path, repository: str) -> None:
    """Hand the history over as a bundle, which needs no way to push and no name that resolves here."""
    bundle = _git(work_tree, "bundle", "create", "-", BRANCH)
    bare = f"/srv/git/{repository}.git"
    script = (
        f"set -e; test -d {bare} || git init --quiet --bare --initial-branch={BRANCH} {bare}; "
        f"cat >/tmp/bundle; git -C {bare} fetch --quiet --force /tmp/bundle {BRANCH}:{BRANCH}; rm /tmp/bundle"
    )
    docker("exec", "--interactive", "--user=www-data", settings.SERVICES, "sh", "-c", script, stdin=bundle)


def _git(work_tree: Path, *arguments: str) -> bytes:
    result = subprocess.run(
        ["git", *arguments],
        cwd=work_tree,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        raise LabError(f"`git {' '.join(arguments)}` failed in {work_tree}:\n{result.stderr.decode(errors='replace')}")
    return result.stdout
