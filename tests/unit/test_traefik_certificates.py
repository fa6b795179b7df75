"""Whether Traefik gets the certificates that it asks for by itself: what it keeps, shows, and says in its log."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import acme, acme_dns
from ansible_collections.shipshape.droplet.plugins.modules import traefik_certificates as module

SITES = [
    {"name": "shop", "domains": ["shop.test", "www.shop.test"]},
    {"name": "any", "domains": ["any.test", "*.any.test"]},
]


class Host:
    """What the functions need of an AnsibleModule."""

    def __init__(self, **params: Any) -> None:
        self.params: dict[str, Any] = {
            "sites": SITES, "storage": "/nonexistent", "webroot": "/nonexistent", "port": 1, "dns_provider": "",
            "dns_token": "", "missing": [], "obstacles": {}, "since": 0, "again": False, "seconds": 0,
            "unit": "traefik.service", "watched": "/nonexistent", **params,
        }  # fmt: skip
        self.log = ""

    def get_bin_path(self, name: str) -> str:
        return f"/usr/bin/{name}"

    def run_command(self, command: list[str], data: str | None = None) -> tuple[int, str, str]:
        if command[0] == "journalctl":
            return 0, self.log, ""
        done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def pair(directory: Path, names: list[str], days: int = 90) -> tuple[bytes, bytes]:
    """A certificate and its key."""
    directory.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
         "-days", str(days), "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
         "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return (directory / "cert.pem").read_bytes(), (directory / "key.pem").read_bytes()


def keep(path: Path, *certificates: bytes) -> str:
    """As Traefik writes it."""
    rows = [{"domain": {"main": "x"}, "certificate": base64.b64encode(one).decode()} for one in certificates]
    path.write_text(json.dumps({"acme": {"Account": {}, "Certificates": rows}}))
    return str(path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """Shows one certificate to whoever asks."""
    pair(tmp_path / "shown", ["shop.test", "www.shop.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "shown/cert.pem", tmp_path / "shown/key.pem")
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _address = listening.accept()
            except OSError:
                return
            try:
                context.wrap_socket(raw, server_side=True).close()
            except OSError:
                continue

    threading.Thread(target=serve, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


def test_without_a_store_all_names_are_missing() -> None:
    assert module.look(Host()) == {"shop": ["shop.test", "www.shop.test"], "any": ["any.test", "*.any.test"]}


def test_names_of_a_valid_certificate_in_the_store_are_covered_also_by_a_wildcard(tmp_path: Path) -> None:
    kept = (pair(tmp_path / "a", ["shop.test", "*.shop.test"])[0], pair(tmp_path / "b", ["any.test"])[0])
    assert module.look(Host(storage=keep(tmp_path / "acme.json", *kept))) == {"any": ["*.any.test"]}


@pytest.mark.parametrize(
    ("hours", "told"),
    [(2160, 0), (64 * 24, 0), (45 * 24, 0), (31 * 24, 720), (8 * 24, 168), (160, 24), (24, 24), (12, 1), (0.35, 1)],
)
def test_traefik_is_told_how_long_certificates_last_where_it_would_renew_too_late(hours: float, told: int) -> None:
    # An authority that does not count the first second.
    assert module.renewal_hours([365 * 24 * 3600, hours * 3600 - 1]) == told


def test_without_a_certificate_nobody_knows_how_long_one_lasts() -> None:
    assert module.renewal_hours([]) == 0 and module.needed(Host()) == 0


def test_the_shortest_of_those_in_the_store_counts_also_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [pair(tmp_path / str(days), ["any.test", "*.any.test"], days)[0] for days in (90, 5)]
    host = Host(storage=keep(tmp_path / "acme.json", *kept))
    assert module.needed(host) == 24
    host = Host(storage=keep(tmp_path / "acme.json", kept[1]))
    assert "any" not in module.look(host)
    in_a_week = time.time() + 7 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: in_a_week)
    assert module.needed(host) == 24 and "any" in module.look(host)


def test_what_is_kept_has_to_be_shown(tmp_path: Path, server: int) -> None:
    shown = (tmp_path / "shown/cert.pem").read_bytes()
    site = [SITES[0]]
    assert module.look(Host(sites=site, port=server, storage=keep(tmp_path / "acme.json", shown))) == {}
    another, _key = pair(tmp_path / "another", ["shop.test", "www.shop.test"])
    host = Host(sites=site, port=server, storage=keep(tmp_path / "acme.json", another))
    assert module.look(host) == {"shop": ["shop.test", "www.shop.test"]}


def test_a_name_that_leads_elsewhere_is_an_obstacle_of_its_site_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme, "own_addresses", lambda: ["198.51.100.4"])
    monkeypatch.setattr(acme, "resolve", lambda name: ["203.0.113.7" if "www" in name else "198.51.100.4"])
    monkeypatch.setattr(acme, "fetch", lambda *_: (404, b""))
    found = module.obstacles(Host(webroot=str(tmp_path)), {"shop": ["shop.test", "www.shop.test"], "any": ["any.test"]})
    assert list(found) == ["shop"]
    assert found["shop"].startswith("DNS for www.shop.test points to 203.0.113.7; this droplet is 198.51.100.4")


def test_with_dns_the_zones_are_looked_at_for_those_that_have_a_certificate_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def zones(token: str, role: str) -> list[str]:
        asked.append((token, role))
        return ["shop.test"]

    monkeypatch.setattr(acme_dns, "zones", zones)
    host = Host(dns_provider="digitalocean", dns_token="t0ken")
    for missing in ({"shop": ["shop.test"], "any": ["*.any.test"]}, {}):
        found = module.unprovable(host, missing)
        assert list(found) == ["any"]
        assert "no zone for *.any.test; the account of acme_dns.token (traefik_acme_dns.token" in found["any"]
    assert asked == [("t0ken", "traefik_acme_dns")] * 2


@pytest.mark.parametrize(("error", "sites"), [(acme_dns.Unusable, ["shop", "any"]), (acme_dns.Unreachable, ["any"])])
def test_a_revoked_token_is_told_before_the_renewal_and_an_api_that_is_out_of_order_is_not(
    monkeypatch: pytest.MonkeyPatch, error: type[acme_dns.Unusable], sites: list[str]
) -> None:
    def zones(token: str, role: str) -> list[str]:
        raise error("revoked")

    monkeypatch.setattr(acme_dns, "zones", zones)
    assert list(module.unprovable(Host(dns_provider="digitalocean"), {"any": ["any.test"]})) == sites


def test_each_reason_is_told_once() -> None:
    assert module.reasons(2, {"shop": "DNS …"}, {}) == "1 of 2 sites have no certificate:\nshop: DNS …"
    said = module.reasons(3, {"shop": "revoked"}, {"any": "revoked"})
    assert said == "2 of 3 sites have no certificate, or it cannot be renewed:\nshop, any: revoked"


def test_the_webroot_is_answered_for_while_no_server_is_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "proof").write_text("token")
    with acme.answering(str(tmp_path), port), acme.answering("/nonexistent", port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/proof", timeout=5) as page:
            assert page.read() == b"token"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 2)


RATE_LIMITED = {
    "level": "error",
    "providerName": "acme.acme",
    "acmeCA": "https://acme-v02.api.letsencrypt.org/directory",
    "routerName": "shop@file",
    "rule": "Host(`shop.test`)",
    "error": "unable to generate a certificate for the domains [shop.test]: acme: error: 429 :: POST :: "
    "https://acme-v02.api.letsencrypt.org/acme/new-order :: urn:ietf:params:acme:error:rateLimited :: too many "
    "certificates (5) already issued for this exact set of domains in the last 168h0m0s, retry after 2026-11-26",
    "domains": ["shop.test"],
    "time": "2026-11-25T21:29:57Z",
    "message": "Unable to obtain ACME certificate for domains",
}


def test_traefiks_own_reason_is_told_with_what_to_do_and_at_once() -> None:
    host = Host(missing=["shop"], seconds=3600)
    host.log = "Started traefik.service.\n" + json.dumps(RATE_LIMITED) + "\n"
    failed = module.wait(host)
    assert "too many certificates (5) already issued" in failed["shop"]
    assert "weekly limit" in failed["shop"].splitlines()[-1]


def test_what_the_log_says_of_other_names_is_no_reason() -> None:
    host = Host(missing=["any"])
    host.log = json.dumps(RATE_LIMITED)
    failed = module.wait(host)
    assert failed["any"].startswith("Traefik shows no certificate for any.test, *.any.test after 0 s, and does not say")


def test_what_stands_in_the_way_of_one_site_does_not_keep_another_waiting(tmp_path: Path) -> None:
    kept, _key = pair(tmp_path / "b", ["any.test", "*.any.test"])
    storage = keep(tmp_path / "acme.json", kept)
    host = Host(missing=["shop", "any"], obstacles={"shop": "DNS …"}, storage=storage, seconds=3600)
    assert module.wait(host) == {"shop": "DNS …"}
