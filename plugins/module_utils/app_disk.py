"""A full disk: told by what the programs say, and told to the operator in words."""

from __future__ import annotations

import os
from typing import NamedTuple

#: What programs say of it, in whatever language they are written: the kernel's words; tar has its own.
SAID = ("no space left on device", "disk quota exceeded", "enospc", "wrote only")
#: The steps that write much, which may fail of it without a word.
WRITING = ("fetch", "export", "virtualenv", "requirements", "build", "pull")
#: Where a deploy writes: the app's own files, then what all apps share.
SHARED = ("/var/lib/docker", "/tmp", "/var/lib/shipshape", "/var/log", "/")
#: Where each app's releases lie, as the module at work knows it.
directories: dict[str, str] = {}
MEGABYTE = 1 << 20
#: Less than this is nothing.
LITTLE = 16 * MEGABYTE


class Room(NamedTuple):
    """What is left on one file system."""

    place: str
    free: int
    size: int
    files: bool

    def __str__(self) -> str:
        if not self.files:
            return f"{self.place} can hold no more files, whatever their size (`df -i`)"
        left = f"{self.place} has {self.free // MEGABYTE} MB free of {self.size // MEGABYTE} MB"
        # A program that tidies up after itself, as git does, has made room again by now.
        return left if self.free < LITTLE else f"{left}, and more was needed"


def is_full(said: str) -> bool:
    lowered = said.lower()
    return any(words in lowered for words in SAID)


def room(path: str) -> Room:
    """What is left where that path is, or will be."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return Room(path, free, size, not found.f_files or found.f_favail > 0)


def fullest(directory: str) -> Room:
    """The file system that is meant: the app's own where that is full, else the one with the least room."""
    own = room(directory)
    if own.free < LITTLE or not own.files:
        return own
    return min([own, *map(room, SHARED)], key=lambda each: (each.files, each.free))


def in_words(app: str, step: str, message: str) -> str:
    """The message, behind what it means and what to do about it, where it means a full disk."""
    if not is_full(message) and step not in WRITING:
        return message
    where = room("/var/lib/docker") if step == "pull" else fullest(directories.get(app, "/"))
    if not is_full(message) and where.files and where.free > MEGABYTE:
        return message
    if where.files and where.free > where.size // 2:
        return message  # another machine's, of which an app's log tells, or a container's own
    return (
        f"the disk of the droplet is full: {where}. Make room (`du -xh --max-depth=3 {where.place} | sort -h | tail`"
        " shows what takes it; `journalctl --vacuum-size=200M`, `shipshape-docker-cleanup` and fewer `keep_releases`"
        f" help) or take a larger disk, and run again\n{message}"
    )
