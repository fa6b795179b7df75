"""Making a backup: dump, store, read back, and only then count it."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional

from shipshape_backup.postgres import as_postgres, conninfo, exists, file_of, tag_of
from shipshape_backup.store import (
    CHUNK,
    FILES,
    MARK,
    UNVERIFIED,
    NotStored,
    Restic,
    end,
    moment,
    text_of,
    watch,
)
from shipshape_backup.unattended import Failure, Stopped, scratch, space

SAMPLE = 5  # files that are read back from each snapshot of paths
DRAWN = 4 * SAMPLE  # from which they are taken: some may be gone by then
SMALL = 16 << 20  # bytes up to which a file is read back to the disk, together with others


def back_up_database(restic: Restic, name: str) -> dict[str, Any]:
    if not exists(name):
        raise Failure(f"database {name} is to be backed up and does not exist on this host")
    # Restic compresses and finds what did not change, which it cannot in a dump that is compressed already.
    dump_command = ["pg_dump", "--format=custom", "--no-password", *(["--compress=0"] if restic.compresses else [])]
    upload_command = ["backup", "--json", "--stdin", "--stdin-filename", file_of(name), "--host", restic.settings.host]
    tags = tagged(tag_of(name))
    digest, size = hashlib.sha256(), 0
    with scratch() as dump_err, scratch() as out, scratch() as err:
        dump = as_postgres(*dump_command, conninfo(name), stdout=subprocess.PIPE, stderr=dump_err)
        upload = restic.start(*upload_command, *tags, stdin=subprocess.PIPE, stdout=out, stderr=err)
        watch(restic, upload, err, restic.disks)
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
            why = restic.meaning(text_of(err), upload.returncode)
            raise NotStored(f"database {name} was dumped and not stored: {why}")
        snapshot = snapshot_of(text_of(out))
    read_back = hashlib.sha256()
    for chunk in restic.read(snapshot, "/" + file_of(name)):
        read_back.update(chunk)
    if read_back.digest() != digest.digest():
        raise Failure(f"database {name} was stored, and what the repository gives back is not what was written")
    return {"name": name, "snapshot": snapshot, "bytes": size, "sha256": digest.hexdigest()}


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
    # All it would be looked at twice for is to say how much there is to come.
    once = ["--no-scan"] if restic.version >= (0, 15) else []
    command = ["backup", "--json", "--verbose=2", *once, *tags, *excludes, "--", *paths]
    # Status 3: a snapshot was made, and some files could not be read.
    with scratch() as err, ThreadPoolExecutor(1) as reader:
        process = restic.start(*command, stdout=subprocess.PIPE, stderr=err)
        watch(restic, process, err, restic.disks)
        # A line for each file, read as it comes and not kept; to its end, so that restic can end when it is told to.
        assert process.stdout
        said = reader.submit(draw, process.stdout)
        try:
            code = process.wait()
        finally:
            end(process)
        if code not in (0, 3):
            raise NotStored(f"the paths were read and not stored: {restic.meaning(text_of(err), code)}")
        if code == 3:
            raise Failure(
                f"some files cannot be read, so the backup of the paths is not whole: {text_of(err).strip()[:500]}"
            )
        summary, drawn = said.result()
    if not summary:
        raise Failure("restic reported no snapshot")
    snapshot = str(summary["snapshot_id"])
    sizes = [(path, size_of(path)) for path in drawn]
    sample = dict([(path, size) for path, size in sizes if size is not None][:SAMPLE])
    read_back(restic, snapshot, sample)
    return {
        "paths": paths, "snapshot": snapshot, "files": summary["total_files_processed"],
        "added": summary["files_new"] + summary["files_changed"], "compared": len(sample),
    }  # fmt: skip


def draw(output: Iterable[bytes]) -> tuple[dict[str, Any], list[Path]]:
    """Of what `restic backup` says: its summary, and some files by chance, of those that were added before others."""
    drawn: dict[bool, list[str]] = {True: [], False: []}
    seen = {True: 0, False: 0}
    summary: dict[str, Any] = {}
    for line in output:
        if line.startswith(b'{"message_type":"summary"'):
            summary = json.loads(line)
        if not line.startswith(b'{"message_type":"verbose_status"'):
            continue
        message = json.loads(line)
        name, added = str(message["item"]), message["action"] in ("new", "modified")
        if message["action"] not in ("new", "modified", "unchanged") or name.endswith("/"):
            continue
        seen[added] += 1
        # Each has the same chance, however many there are to come.
        place = random.randrange(seen[added])
        if len(drawn[added]) < DRAWN:
            drawn[added].append(name)
        elif place < DRAWN:
            drawn[added][place] = name
    return summary, [Path(name) for name in (*drawn[True], *drawn[False])]


def size_of(path: Path) -> Optional[int]:
    """In bytes, of what still is a file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def list_files(restic: Restic, snapshot: str) -> list[dict[str, Any]]:
    nodes = (json.loads(line) for line in restic.call("ls", "--json", *restic.reading, snapshot).splitlines())
    return [node for node in nodes if node.get("type") == "file"]


def read_back(restic: Restic, snapshot: str, sample: dict[Path, int]) -> None:
    """The snapshot, and the way from it to each of these files, as the store has them and no cache; and compare them.

    Small ones go to the disk, where one start of restic fetches them all; others are only looked at.
    """
    small = [path for path, size in sample.items() if size <= SMALL]
    free, others = space(restic.settings.state)
    if free - others < 2 * sum(sample[path] for path in small):
        small = []
    if not sample:  # nothing but directories
        restic.call("ls", "--no-cache", *restic.reading, snapshot)
    for path in sample:
        if path not in small:
            compare(restic, snapshot, path, digest_of(restic.read(snapshot, str(path))))
    if not small:
        return
    stage = restic.settings.state / "read-back"
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    stage.mkdir(mode=0o700)
    wanted = [part for path in small for part in ("--include", literally(path))]
    try:
        try:
            restic.call("restore", "--no-cache", *restic.reading, snapshot, "--target", str(stage), *wanted)
        except Stopped:
            raise
        except Failure as failure:
            raise Failure(f"the files were stored, and cannot be read back: {failure}") from failure
        for path in small:
            try:
                digest = digest_of(chunks(stage / str(path).lstrip("/")))
            except FileNotFoundError as error:
                raise Failure(f"{path} was stored, and the repository does not give it back") from error
            compare(restic, snapshot, path, digest)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def literally(path: Path) -> str:
    """A pattern of restic's that is this path alone."""
    return re.sub(r"([\\*?\[])", r"\\\1", str(path))


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def digest_of(content: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for chunk in content:
        found.update(chunk)
    return found.digest()


def compare(restic: Restic, snapshot: str, path: Path, stored: bytes) -> None:
    """What the repository has of a file with the file here, unless that has changed since."""
    try:
        if digest_of(chunks(path)) == stored:
            return
        present = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return
    then = [node for node in list_files(restic, snapshot) if node["path"] == str(path)]
    if not then or abs(present - moment(then[0]["mtime"]).timestamp()) <= 0.01:
        raise Failure(f"{path} was stored, and what the repository gives back is not what is here")


def forget(restic: Restic) -> list[dict[str, Any]]:
    """By tags only: each database and the paths have a history of their own, also after a path was added.

    What is left of ours afterwards, or nothing where nothing is to go.
    """
    keep = [part for unit, count in restic.settings.keep.items() if count for part in (f"--keep-{unit}", str(count))]
    if not keep:
        return []
    out = restic.call("forget", "--json", "--tag", MARK, "--group-by", "tags", *keep, "--prune")
    # What is said of the pruning comes after it, and is no JSON.
    groups: list[dict[str, Any]] = next((json.loads(line) for line in out.splitlines() if line.startswith("[{")), [])
    return [snapshot for group in groups for snapshot in group["keep"] or []]
