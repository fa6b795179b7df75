"""Archives as a source of apps: fetched from a real server, used only when they are what was meant."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_specs
from ansible_collections.shipshape.droplet.plugins.module_utils import app_archive, app_source
from ansible_collections.shipshape.droplet.plugins.module_utils.app_archive import Archive
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import Account, AppError

from tests.unit.app_tools import be_the_app_user

FILES = {"site-1.4/dist/index.html": "<p>hello</p>", "site-1.4/dist/assets/a.js": "1", "site-1.4/README": "read"}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setattr(app_archive, "time", SimpleNamespace(sleep=lambda _seconds: None))
    return be_the_app_user(monkeypatch)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL it is served under."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def tar(path: Path, files: dict[str, str] = FILES, mode: str = "w:gz") -> str:
    with tarfile.open(path, mode) as bundle:  # type: ignore[call-overload]
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            bundle.addfile(entry, io.BytesIO(text.encode()))
    return checksum(path)


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(account: Account, tmp_path: Path, url: str, wanted: str, path: str = "site-1.4/dist") -> Path:
    target = tmp_path / "release" / "public"
    target.mkdir(parents=True)
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    try:
        Archive("site", account, str(store), url).export(wanted, path, str(target))
    finally:
        assert os.listdir(store) == []
    return target


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_a_folder_of_a_tar_is_put_into_the_release(
    account: Account, served: tuple[Path, str], tmp_path: Path, name: str, mode: str
) -> None:
    folder, url = served
    target = export(account, tmp_path, f"{url}/{name}", tar(folder / name, mode=mode))
    assert (target / "index.html").read_text() == "<p>hello</p>" and (target / "assets" / "a.js").exists()
    assert not (target / "README").exists()


def test_a_zip_is_unpacked_as_well(account: Account, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    with zipfile.ZipFile(folder / "a.zip", "w") as bundle:
        for name, text in FILES.items():
            bundle.writestr(name, text)
    target = export(account, tmp_path, f"{url}/a.zip", checksum(folder / "a.zip"), "site-1.4")
    assert (target / "dist" / "index.html").exists()


def test_another_archive_than_the_one_that_was_meant_is_not_used(
    account: Account, served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = served
    found = tar(folder / "a.tar.gz")
    with pytest.raises(AppError, match=rf"site: fetch: {url}/a.tar.gz has the checksum sha256:{found}, .*changed"):
        export(account, tmp_path, f"{url}/a.tar.gz", "0" * 64)
    assert os.listdir(tmp_path / "release" / "public") == []


def test_an_archive_that_is_not_there_is_named_without_its_password(
    account: Account, served: tuple[Path, str], tmp_path: Path
) -> None:
    url = served[1]
    with pytest.raises(AppError, match=r"site: fetch: cannot fetch .*/no.tar.gz: the server answers 404") as failed:
        export(account, tmp_path, f"{url}/no.tar.gz", "0" * 64)
    assert "source.archive" in str(failed.value)


def test_a_server_that_is_away_is_tried_again_and_named(account: Account, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"cannot fetch http://127.0.0.1:9/a.tar: .*refused"):
        export(account, tmp_path, "http://127.0.0.1:9/a.tar", "0" * 64)


def test_a_folder_that_is_not_in_it_is_named_with_those_that_are(
    account: Account, served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = served
    wanted = tar(folder / "a.tar")
    with pytest.raises(AppError, match=r"folder 'dist' .source.path. is not in .*; folders there: site-1.4"):
        export(account, tmp_path, f"{url}/a.tar", wanted, "dist")


def test_what_is_no_archive_is_not_unpacked(account: Account, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "a.tar").write_text("<html>Please log in</html>", encoding="utf-8")
    with pytest.raises(AppError, match="site: export: cannot unpack"):
        export(account, tmp_path, f"{url}/a.tar", checksum(folder / "a.tar"))


def test_nothing_is_written_outside_of_the_release(account: Account, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    wanted = tar(folder / "a.tar", {"../../escaped": "x", "site-1.4/dist/index.html": "y"})
    with pytest.raises(AppError, match="cannot unpack"):
        export(account, tmp_path, f"{url}/a.tar", wanted)
    assert not list(tmp_path.rglob("escaped"))


SITE: dict[str, Any] = {
    "name": "site",
    "type": "static",
    "source": {"archive": "https://files.test/site-1.4.tar.gz", "checksum": "sha256:" + "a" * 64, "path": "dist"},
}


def test_the_checksum_is_its_commit_and_the_files_name_its_version() -> None:
    spec = app_specs([SITE])["site"]
    assert spec["version"] == "site-1.4.tar.gz"
    assert app_source.wanted_commit(spec, None, False) == "a" * 64
    assert app_source.remote_refs([spec], {}) == {}


def test_another_version_of_an_archive_cannot_be_asked_for() -> None:
    spec = app_specs([SITE], "v2")["site"]
    with pytest.raises(AppError, match=r"no version 'v2' of an archive; change source.archive and source.checksum"):
        app_source.wanted_commit(spec, None, False)
