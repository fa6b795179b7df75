"""The droplet's own program that checks what is declared for Traefik and takes it live."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.unit.nginx_lab import free_port

sys.path.insert(0, str(Path(__file__).parents[2] / "roles" / "traefik" / "files"))
import shipshape_traefik as program


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    directory = tmp_path / "declared"
    directory.mkdir()
    (tmp_path / "colours").mkdir()
    for name in (
        "base.yml",
        "site-a.yml",
        "live-a.blue.yml",
        "live-a.green.yml",
        "live-b.c.yml",
        ".shipshape-x",
        "notes",
    ):
        (directory / name).write_text(name)
    (tmp_path / "cert.pem").write_text("the certificate")
    (tmp_path / "key.pem").write_text("the key")
    row = {"name": "a", "certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem"), "default": True}
    (directory / "certificates.json").write_text(json.dumps([row]))
    return directory


def test_the_live_colour_is_the_one_that_goes_live(declared: Path, tmp_path: Path) -> None:
    colours = tmp_path / "colours"
    texts = program.declared_texts(str(declared), str(colours))
    assert sorted(texts) == ["base.yml", "live-a.yml", "live-b.c.yml", "site-a.yml", "tls-a.yml"]
    assert texts["live-a.yml"] == "live-a.blue.yml"
    (colours / "a.green").touch()
    assert program.declared_texts(str(declared), str(colours))["live-a.yml"] == "live-a.green.yml"


def test_a_certificate_goes_into_the_file_itself(declared: Path, tmp_path: Path) -> None:
    """Traefik watches its files, not what they point to: a renewed certificate must change one."""
    tls = json.loads(program.declared_texts(str(declared), str(tmp_path))["tls-a.yml"])["tls"]
    assert tls["certificates"] == [{"certFile": "the certificate", "keyFile": "the key"}]
    assert tls["stores"]["default"]["defaultCertificate"] == tls["certificates"][0]


def test_a_certificate_that_is_not_there_is_named(declared: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").unlink()
    with pytest.raises(program.Refused, match=r"certificate of site a cannot be read: .*key\.pem"):
        program.declared_texts(str(declared), str(tmp_path))


def test_what_is_referred_to_comes_first_and_goes_last(tmp_path: Path) -> None:
    texts = {name: "new" for name in ("site-a.yml", "base.yml", "tls-a.yml", "live-a.yml", "live-b.yml")}
    (tmp_path / "live-b.yml").write_text("new")
    (tmp_path / "live-a.yml").write_text("old")
    for name in ("live-z.yml", "site-z.yml"):
        (tmp_path / name).touch()
    assert program.differences(texts, str(tmp_path)) == ["tls-a.yml", "live-a.yml", "base.yml", "site-a.yml"]
    assert program.surplus(texts, str(tmp_path)) == ["site-z.yml", "live-z.yml"]


def test_a_file_is_whole_or_not_there_and_not_for_everybody(tmp_path: Path) -> None:
    target = tmp_path / "tls-a.yml"
    target.write_text("old")
    before = target.stat().st_ino
    if os.geteuid() == 0:
        program.put(str(target), "new", 0)
        assert (target.read_text(), oct(target.stat().st_mode & 0o777)) == ("new", "0o640")
        assert target.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["tls-a.yml"]


def test_what_traefik_complains_of_is_told_but_not_that_it_reaches_no_authority() -> None:
    lines = [
        {"level": "warn", "message": "whatever"},
        {"level": "error", "routerName": "a@file", "error": 'middleware "x@file" does not exist'},
        {"level": "error", "acmeCA": "https://ca", "message": "Unable to obtain ACME certificate"},
        {"level": "error", "message": "Error while building configuration", "error": "a.yml: field not found, node: x"},
    ]
    log = (
        "\n".join(json.dumps(line) for line in lines) + "\n2026/11/25 command traefik error: field not found, node: y\n"
    )
    assert list(program.complaints(log)) == [
        'a@file: middleware "x@file" does not exist',
        "Error while building configuration: a.yml: field not found, node: x",
        "2026/11/25 command traefik error: field not found, node: y",
    ]


def test_it_starts_when_whoever_served_before_has_given_its_ports_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, when it could not listen; nor later, when that one has answered its last request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            entry_points = {"web": {"address": f":{port}"}, "metrics": {"address": f"127.0.0.1:{free_port()}"}}
            static = tmp_path / "traefik.yml"
            static.write_text(yaml.safe_dump({"entryPoints": entry_points}))
            monkeypatch.setattr(program, "STATIC", str(static))
            assert port in program.listening()
            monkeypatch.setattr(program, "PATIENCE", 0.3)
            started = time.monotonic()
            program.wait_for_ports()
            assert time.monotonic() - started >= 0.3
            monkeypatch.setattr(program, "PATIENCE", 20)
            threading.Timer(0.2, listener.close).start()
            started = time.monotonic()
            program.wait_for_ports()
            assert time.monotonic() - started < 10
            assert port not in program.listening()
