"""What a DNS provider's API says, told to the operator: against a server that answers as DigitalOcean's does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import acme_dns

TOKEN = "dop_v1_0123456789abcdef"
ZONES = ["example.com", "Shop.example.net", "third.example.org"]


class Api(BaseHTTPRequestHandler):
    status = 0
    next_page = ""

    port = 0

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        status = self.status or (200 if allowed else 401)
        base = f"http://127.0.0.1:{self.port}"
        second = "?page=2" in self.path
        more = {} if second else {"pages": {"next": self.next_page or f"{base}/v2/domains?page=2&per_page=200"}}
        rows = [{"name": zone} for zone in (ZONES[2:] if second else ZONES[:2])]
        body = json.dumps({"domains": rows, "links": more} if status == 200 else {"id": "x"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Any]:
    handler: Any = type("OneApi", (Api,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    handler.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_all_pages_of_zones_are_read(api: Any) -> None:
    _handler, url = api
    assert acme_dns.zones(TOKEN, "certbot_dns", url) == ["example.com", "shop.example.net", "third.example.org"]


def test_the_token_is_never_sent_to_another_host(api: Any) -> None:
    handler, url = api
    handler.next_page = "http://127.0.0.2:1/v2/domains?page=2"
    assert acme_dns.zones(TOKEN, "certbot_dns", url) == ["example.com", "shop.example.net"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"refuses the token in acme_dns\.token \(certbot_dns\.token for the role alone\) \(401\): .*vault"),
        (403, r"does not let the token in acme_dns\.token .* see the zones \(403\).*domain:create"),
        (404, r"does not let the token in acme_dns\.token .* see the zones \(404\).*domain:read"),
    ],
)
def test_a_refusal_says_what_to_do_and_not_the_token(api: Any, status: int, said: str) -> None:
    handler, url = api
    handler.status = status
    with pytest.raises(acme_dns.Unusable, match=said) as error:
        acme_dns.zones(TOKEN, "certbot_dns", url)
    assert not isinstance(error.value, acme_dns.Unreachable) and TOKEN not in str(error.value)


def test_an_api_that_is_out_of_order_is_told_from_one_that_refuses(api: Any) -> None:
    handler, url = api
    handler.status = 503
    with pytest.raises(acme_dns.Unreachable, match="answers 503"):
        acme_dns.zones(TOKEN, "certbot_dns", url)
    with pytest.raises(acme_dns.Unreachable, match=r"cannot be reached from this droplet .*refused"):
        acme_dns.zones(TOKEN, "certbot_dns", "http://127.0.0.1:1")


def test_a_name_outside_of_all_zones_is_told_with_those_that_there_are() -> None:
    zones = ["example.com", "shop.example.net"]
    for name in ("example.com", "a.b.example.com", "*.example.com", "*.shop.example.net"):
        assert acme_dns.obstacle(name, zones, "certbot_dns") is None
    for name in ("notexample.com", "example.net", "*.example.org"):
        said = str(acme_dns.obstacle(name, zones, "certbot_dns"))
        assert said.startswith(f"DigitalOcean has no zone for {name}; ") and "example.com, shop.example.net" in said
    assert "has: none." in str(acme_dns.obstacle("example.com", [], "certbot_dns"))


def test_the_token_is_read_from_the_file_of_certbots_plugin(tmp_path: Path) -> None:
    file = tmp_path / "dns.ini"
    assert acme_dns.token_of(str(file)) == ""
    file.write_text(f"# Written by Shipshape\ndns_digitalocean_token = {TOKEN}\n")
    assert acme_dns.token_of(str(file)) == TOKEN
