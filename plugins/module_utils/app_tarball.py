"""A tarball with an app's files from an old host: seen to be whole, and put in the place of a shared folder."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import tarfile
import zlib
from typing import IO, Iterator, NamedTuple, Sequence

#: A tarball ends in two blocks of zeros. tarfile takes one that is cut off between two members for a whole one.
END = bytes(1024)
CHUNK = 1 << 20


class Unusable(Exception):
    """The tarball, or the folder, will not do: why, and what to do."""


class Contents(NamedTuple):
    """What is in a tarball: paths with sizes, and the folders above that the import leaves away."""

    files: dict[str, int]
    above: tuple[str, ...]
    digest: str

    @property
    def size(self) -> int:
        return sum(self.files.values())


class _Stream:
    """A file as it is read, with its last bytes."""

    def __init__(self, inner: IO[bytes]) -> None:
        self.inner = inner
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size)
        self.tail = (self.tail + data)[-len(END) :]
        return data


def _opened(handle: IO[bytes]) -> IO[bytes]:
    start = handle.read(6)
    handle.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(handle)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.open(handle)
    if start == b"\xfd7zXZ\x00":
        return lzma.open(handle)
    return handle


def members(handle: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Its members one by one; raises Unusable at its end when that is not the end that tar has written."""
    stream = _Stream(_opened(handle))
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                yield tar, member
        while stream.read(CHUNK):
            pass
    except (EOFError, zlib.error, lzma.LZMAError, tarfile.ReadError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise Unusable(f"it is cut off or damaged, or no tarball ({error}). Copy it again, or make it again") from error
    if stream.tail != END:
        raise Unusable("it is cut off: its end is missing. Copy it again, or make it again")


def path_of(member: tarfile.TarInfo) -> tuple[str, ...]:
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.name.startswith("/") or ".." in parts:
        raise Unusable(f"it has {member.name}, which would land outside of the folder. Make it with relative paths")
    if not (member.isreg() or member.isdir()):
        hint = "Make it of files and folders alone (tar --dereference --hard-dereference)"
        raise Unusable(f"{member.name} in it is a link or a device. {hint}")
    return parts


def above(files: Sequence[tuple[str, ...]], folder: str) -> tuple[str, ...]:
    """backend/uploads of backend/uploads/7/a.jpg, where uploads is what is imported; nothing where it is not in all."""
    name = folder.rstrip("/").rsplit("/", 1)[-1]
    common: list[str] = []
    for level in zip(*(parts[:-1] for parts in files)):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    if name not in common:
        return ()
    return tuple(common[: len(common) - common[::-1].index(name)])


def look(path: str, folder: str) -> Contents:
    """Read all of it."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(CHUNK), b""):
            digest.update(chunk)
        handle.seek(0)
        found = {path_of(member): member.size for _tar, member in members(handle) if path_of(member) and member.isreg()}
    if not found:
        raise Unusable("there is no file in it")
    gone = above(list(found), folder)
    files = {"/".join(parts[len(gone) :]): size for parts, size in found.items()}
    return Contents(files, gone, digest.hexdigest())


def unpack(handle: IO[bytes], gone: tuple[str, ...], directory: str) -> None:
    """Into an empty directory, as whoever this runs as."""
    for tar, member in members(handle):
        parts = path_of(member)[len(gone) :]
        place = os.path.join(directory, *parts)
        if member.isdir():
            os.makedirs(place, 0o750, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(place), 0o750, exist_ok=True)
        inside = tar.extractfile(member)
        assert inside is not None
        with open(place, "wb") as out:
            shutil.copyfileobj(inside, out, CHUNK)
        os.chmod(place, member.mode & 0o777 | 0o600)
        os.utime(place, (member.mtime, member.mtime))


class Place:
    """A shared folder, and beside it what an import needs while it is at work.

    A run that was killed is finished, or begun anew.
    """

    def __init__(self, state: str, folder: str) -> None:
        slug = folder.strip("/").replace("/", "-")
        self.state = state
        self.target = os.path.join(state, folder)
        self.half = os.path.join(state, f".import-{slug}")
        self.whole = os.path.join(state, f".imported-{slug}")
        self.record = os.path.join(state, f".imported-{slug}.json")

    def has(self) -> int:
        """How many files are there."""
        return sum(len(names) for _folder, _folders, names in os.walk(self.target))

    def imported(self) -> str:
        """The checksum of the tarball that was imported last."""
        try:
            with open(self.record, encoding="utf-8") as stream:
                return str(json.load(stream)["sha256"])
        except (OSError, ValueError, KeyError):
            return ""

    def unpack(self, path_handle: IO[bytes], contents: Contents, kept: str) -> None:
        """All or nothing: what is unpacked to its end has the other name, in one step."""
        shutil.rmtree(self.half, ignore_errors=True)
        try:
            os.makedirs(os.path.join(self.half, "new"), 0o750)
            unpack(path_handle, contents.above, os.path.join(self.half, "new"))
            with open(os.path.join(self.half, "plan.json"), "w", encoding="utf-8") as stream:
                json.dump({"sha256": contents.digest, "kept": kept, "old": sorted(self.entries(self.target))}, stream)
            os.rename(self.half, self.whole)
        except BaseException:
            shutil.rmtree(self.half, ignore_errors=True)
            raise

    @staticmethod
    def entries(folder: str) -> list[str]:
        return os.listdir(folder) if os.path.isdir(folder) else []

    def finish(self) -> None:
        """The former files make room, the new ones come: entry by entry, as a container may have the folder itself."""
        with open(os.path.join(self.whole, "plan.json"), encoding="utf-8") as stream:
            plan = json.load(stream)
        os.makedirs(self.target, 0o750, exist_ok=True)
        new = os.path.join(self.whole, "new")
        if plan["kept"]:
            os.makedirs(os.path.join(self.state, plan["kept"]), 0o750, exist_ok=True)
        for name in plan["old"]:
            # What has come already is gone from `new`, and is not the former one of that name.
            kept = os.path.join(self.state, plan["kept"], name)
            if plan["kept"] and not os.path.lexists(kept) and os.path.lexists(os.path.join(self.target, name)):
                os.rename(os.path.join(self.target, name), kept)
        for name in os.listdir(new):
            os.rename(os.path.join(new, name), os.path.join(self.target, name))
        with open(self.record, "w", encoding="utf-8") as stream:
            json.dump({"sha256": plan["sha256"]}, stream)
        shutil.rmtree(self.whole)
