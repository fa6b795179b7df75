"""Making a backup: dump, store, read back, and only then count it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from shipshape_backup.postgres import as_postgres, conninfo, exists, file_of, tag_of
from shipshape_backup.store import (
    CHUNK,
    FILES,
    MARK,
    UNVERIFIED,
    NotStored,
    Restic,
    end,
    give_up,
    meaning,
    moment,
    text_of,
)
from shipshape_backup.unattended import Failure

SAMPLE = 5  # files read back from each snapshot of paths


def back_up_database(restic: Restic, name: str) -> dict[str, Any]:
    if not exists(name):
        raise Failure(f"database {name} is to be backed up and does not exist on this host")
    # Restic compresses and finds what did not change, which it cannot in a dump that is compressed already.
    dump_command = ["pg_dump", "--format=custom", "--no-password", *(["--compress=0"] if restic.compresses() else [])]
    upload_command = ["backup", "--json", "--stdin", "--stdin-filename", file_of(name), "--host", restic.settings.host]
    tags = tagged(tag_of(name))
    digest, size = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as dump_err, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        dump = as_postgres(*dump_command, conninfo(name), stdout=subprocess.PIPE, stderr=dump_err)
        upload = restic.start(*upload_command, *tags, stdin=subprocess.PIPE, stdout=out, stderr=err)
        give_up(upload, err)
        assert dump.stdout and upload.stdin
        try:
            while chunk := dump.stdout.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                upload.stdin.write(chunk)
            if dump.wait() != 0:
                # Restic is interrupted below, before it sees the end of its input: what it has is no dump.
                raise Failure(f"pg_dump of database {name} failed: {text_of(dump_err).strip()}")
            upload.stdin.close()
            upload.wait()
        except BrokenPipeError:
            upload.wait()  # restic gave up; it says why below
        finally:
            end(upload)
            end(dump)
        if upload.returncode != 0:
            raise NotStored(f"database {name} was dumped and not stored: {meaning(text_of(err), upload.returncode)}")
        snapshot = snapshot_of(text_of(out))
    read_back = hashlib.sha256()
    for chunk in restic.read(snapshot, "/" + file_of(name)):
        read_back.update(chunk)
    if read_back.digest() != digest.digest():
        raise Failure(f"database {name} was stored, and what the repository gives back is not what was written")
    return {"name": name, "snapshot": restic.count(snapshot), "bytes": size, "sha256": digest.hexdigest()}


def tagged(what: str) -> list[str]:
    # One by one: restic 0.11 takes a list for a single tag.
    return [part for tag in (MARK, what, UNVERIFIED) for part in ("--tag", tag)]


def snapshot_of(output: str) -> str:
    for line in reversed(output.splitlines()):
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("message_type") == "summary":
            return str(message["snapshot_id"])
    raise Failure("restic reported no snapshot")


def back_up_paths(restic: Restic, paths: list[str]) -> dict[str, Any]:
    excludes = [part for pattern in restic.settings.exclude for part in ("--exclude", pattern)]
    tags = [*tagged(FILES), "--host", restic.settings.host]
    # Status 3: a snapshot was made, and some files could not be read.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = restic.start("backup", "--json", *tags, *excludes, "--", *paths, stdout=out, stderr=err)
        give_up(process, err)
        try:
            code = process.wait()
        finally:
            end(process)
        if code not in (0, 3):
            raise NotStored(f"the paths were read and not stored: {meaning(text_of(err), code)}")
        if code == 3:
            raise Failure(
                f"some files cannot be read, so the backup of the paths is not whole: {text_of(err).strip()[:500]}"
            )
        snapshot = snapshot_of(text_of(out))
    files = list_files(restic, snapshot)
    for node in sorted(files, key=lambda node: str(node["mtime"]), reverse=True)[:SAMPLE]:
        compare(restic, snapshot, node)
    return {
        "paths": paths,
        "snapshot": restic.count(snapshot),
        "files": len(files),
        "compared": min(len(files), SAMPLE),
    }


def list_files(restic: Restic, snapshot: str) -> list[dict[str, Any]]:
    nodes = (json.loads(line) for line in restic.call("ls", "--json", *restic.reading, snapshot).splitlines())
    return [node for node in nodes if node.get("type") == "file"]


def compare(restic: Restic, snapshot: str, node: dict[str, Any]) -> None:
    """A file in the repository with the one here, unless that has changed since."""
    path, stored, local = Path(node["path"]), hashlib.sha256(), hashlib.sha256()
    for chunk in restic.read(snapshot, str(path)):
        stored.update(chunk)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                local.update(chunk)
        changed = abs(path.stat().st_mtime - moment(node["mtime"]).timestamp()) > 0.01
    except FileNotFoundError:
        return
    if stored.digest() != local.digest() and not changed:
        raise Failure(f"{path} was stored, and what the repository gives back is not what is here")


def forget(restic: Restic) -> None:
    """By tags only: each database and the paths have a history of their own, also after a path was added."""
    keep = [part for unit, count in restic.settings.keep.items() if count for part in (f"--keep-{unit}", str(count))]
    if keep:
        restic.call("forget", "--tag", MARK, "--group-by", "tags", *keep, "--prune")
