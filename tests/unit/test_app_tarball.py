"""The tarball of an old host: whole or refused, and nothing half in its place."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils.app_tarball import Place, Unusable, above, look

PHOTOS = {"backend/uploads/7/a.jpg": b"a" * 40000, "backend/uploads/7/b.jpg": b"b", "backend/uploads/logo.png": b"c"}


def tarball(path: Path, files: dict[str, bytes], mode: Any = "w:gz", kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_what_is_above_the_folder_is_left_away(tmp_path: Path, mode: str) -> None:
    found = look(str(tarball(tmp_path / "photos", PHOTOS, mode)), "uploads")
    assert set(found.files) == {"7/a.jpg", "7/b.jpg", "logo.png"}
    assert found.above == ("backend", "uploads") and found.size == 40002


def test_only_what_all_files_are_in_is_above() -> None:
    assert above([("uploads", "a"), ("other", "b")], "uploads") == ()
    assert above([("a",), ("b",)], "uploads") == ()
    assert above([("x", "uploads", "7", "a"), ("x", "uploads", "7", "b")], "data/uploads") == ("x", "uploads")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("cut", [5, 512, 1100, 9000])
def test_one_that_is_cut_off_is_refused(tmp_path: Path, mode: str, cut: int) -> None:
    path = tarball(tmp_path / "photos", {"a.jpg": os.urandom(40000), "b.jpg": b"b"}, mode)
    data = path.read_bytes()
    # tar pads its end to ten kilobytes: with only zeros missing there, nothing is missing.
    rest = data.rstrip(b"\0") + bytes(1024) if mode == "w" else data
    path.write_bytes(rest[:-cut])
    with pytest.raises(Unusable, match="cut off"):
        look(str(path), "uploads")


@pytest.mark.parametrize(
    ("files", "kind", "said"),
    [
        ({"../etc/passwd": b"x"}, tarfile.REGTYPE, "outside of the folder"),
        ({"/etc/passwd": b"x"}, tarfile.REGTYPE, "outside of the folder"),
        ({"uploads/a": b""}, tarfile.SYMTYPE, "link or a device"),
        ({"uploads/a": b""}, tarfile.LNKTYPE, "link or a device"),
        ({}, tarfile.REGTYPE, "no file in it"),
    ],
)
def test_what_would_write_elsewhere_is_refused(tmp_path: Path, files: dict[str, bytes], kind: bytes, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        look(str(tarball(tmp_path / "photos", files, kind=kind)), "uploads")


def test_text_is_no_tarball(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("Not found\n")
    with pytest.raises(Unusable, match="no tarball"):
        look(str(tmp_path / "photos"), "uploads")


def unpacked(place: Place, path: Path, kept: str = "") -> None:
    contents = look(str(path), "uploads")
    with path.open("rb") as handle:
        place.unpack(handle, contents, kept)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_former_files_are_kept_and_a_run_that_was_cut_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, path = Place(str(tmp_path / "state"), "uploads"), tarball(tmp_path / "photos", PHOTOS)
    for name in ("7/old.jpg", "logo.png"):
        (tmp_path / "state" / "uploads" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "state" / "uploads" / name).write_bytes(b"old")
    unpacked(place, path, "uploads_before")
    rename = os.rename
    for allowed in range(5):
        left = [allowed]

        def stop(source: str, target: str, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            rename(source, target)

        monkeypatch.setattr(os, "rename", stop)
        try:
            place.finish()
            break
        except KeyboardInterrupt:
            continue
    assert files(tmp_path / "state" / "uploads") == {"7/a.jpg": b"a" * 40000, "7/b.jpg": b"b", "logo.png": b"c"}
    assert files(tmp_path / "state" / "uploads_before") == {"7/old.jpg": b"old", "logo.png": b"old"}
    assert place.imported() == look(str(path), "uploads").digest
    assert not os.path.exists(place.whole) and not os.path.exists(place.half)


def test_one_that_fails_while_it_is_unpacked_leaves_nothing(tmp_path: Path) -> None:
    place, path = Place(str(tmp_path / "state"), "uploads"), tarball(tmp_path / "photos", PHOTOS)
    contents = look(str(path), "uploads")
    path.write_bytes(path.read_bytes()[:-20])
    with path.open("rb") as handle, pytest.raises(Unusable):
        place.unpack(handle, contents, "")
    assert files(tmp_path / "state") == {}
