"""Which commit an app's version stands for, as its git server says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Mapping

from ansible_collections.shipshape.droplet.plugins.module_utils.app_deploy_key import Access
from ansible_collections.shipshape.droplet.plugins.module_utils.app_env import without_password
from ansible_collections.shipshape.droplet.plugins.module_utils.app_git import (
    FULL_COMMIT,
    SHORT_COMMIT,
    Mirror,
    Refs,
    list_refs,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import Account, AppError, run


def remote_refs(apps: list[dict[str, Any]], accesses: Mapping[str, Access]) -> dict[str, Refs]:
    """What the git server of each app has. Those that ask for the same in the same way ask once, and all at a time."""
    if run(None, ["git", "--version"])[0] != 0:
        return {}
    questions: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for app in apps:
        access = accesses.get(app["name"], Access())
        # A key is for a user of its own alone: on a bare host, in check mode, only a later step can tell.
        unknown = access.key and not Account(app["user"]).exists
        if app["git"] and not FULL_COMMIT.fullmatch(app["version"]) and not unknown:
            questions.setdefault((app["git"], access.key, access.host_key), []).append(app)
    with ThreadPoolExecutor(max_workers=8) as pool:
        jobs = [
            (asking, pool.submit(list_refs, asking[0]["name"], Account(asking[0]["user"]), url, Access(*key)))
            for (url, *key), asking in questions.items()
        ]
        return {app["name"]: job.result() for asking, job in jobs for app in asking}


def archive_name(app: dict[str, Any]) -> str:
    """The version of an app that is an archive, as the filter app_specs has it."""
    return str(app["archive"]).rstrip("/").rpartition("/")[2]


def wanted_commit(app: dict[str, Any], refs: Refs | None, check_mode: bool, access: Access | None = None) -> str:
    """The commit the version stands for; nothing while only a later step can tell (check mode on a bare host)."""
    version = app["version"]
    if app["archive"]:
        if version != archive_name(app):
            raise AppError(
                app["name"],
                "source",
                f"there is no version {version!r} of an archive; change source.archive and source.checksum",
            )
        return str(app["checksum"].partition(":")[2])
    if FULL_COMMIT.fullmatch(version):
        return str(version)
    if refs is None:
        if check_mode:
            return ""
        raise AppError(app["name"], "source", "git is not installed on this host")
    commit = refs.find(version)
    if not commit and SHORT_COMMIT.fullmatch(version):
        repository = Store(app["name"], app["directory"]).repository
        mirror = Mirror(app["name"], Account(app["user"]), repository, app["git"], access=access)
        commit = mirror.commit(version)
        if not commit and not check_mode:
            mirror.fetch()
            commit = mirror.commit(version)
        if not commit and check_mode:
            return ""
    if not commit:
        raise AppError(
            app["name"],
            "source",
            "version {!r} is no branch, tag or commit of {}; {}".format(
                version, without_password(app["git"]), refs.describe()
            ),
        )
    return str(commit)
