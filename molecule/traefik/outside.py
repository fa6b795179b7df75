"""What a client on the network sees of the droplet: run by pytest with SHIPSHAPE_ADDRESS."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl

import pytest

ADDRESS = os.environ["SHIPSHAPE_ADDRESS"]


def connect(host: str | None, tls: bool = True, alpn: tuple[str, ...] = ()) -> socket.socket:
    raw = socket.create_connection((ADDRESS, 443 if tls else 80), 10)
    if not tls:
        return raw
    context = ssl._create_unverified_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(raw, server_hostname=host)


def ask(
    host: str, path: str, tls: bool = True, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host)
    connection.sock = connect(host, tls)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    connection.request(method, path, body=body, headers={"Host": host, **named})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, {key.lower(): value for key, value in response.getheaders()}, data


def test_http_leads_to_https_on_the_same_name() -> None:
    status, headers, _body = ask("api.test", "/a?b", tls=False)
    assert (status, headers["location"]) == (301, "https://api.test/a?b")


def test_a_challenge_is_answered_over_http_for_any_name() -> None:
    for host in ("web.test", "not-yet-a-site.test"):
        status, headers, body = ask(host, "/.well-known/acme-challenge/molecule", tls=False)
        assert (status, headers["content-type"], body) == (200, "text/plain", b"proof\n")


def test_unknown_names_and_the_bare_address_get_no_answer() -> None:
    for host in ("unknown.test", ADDRESS):
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(host, "/")


def test_redirect_domains_lead_to_the_first_domain() -> None:
    status, headers, _body = ask("www.api.test", "/a?b")
    assert (status, headers["location"]) == (301, "https://api.test/a?b")


def test_headers_say_what_they_must() -> None:
    _status, headers, _body = ask("api.test", "/")
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["content-security-policy"] == "default-src 'self'"
    assert "server" not in headers


def test_a_file_that_begins_with_a_dot_is_nobodys_business() -> None:
    for path in ("/.env", "/%2eenv", "/a/.git/config", "/.well-known/.env"):
        assert ask("api.test", path)[0] == 404
    assert ask("api.test", "/.well-known/security.txt")[0] == 200


def test_the_application_is_a_single_page_with_its_cache_rules() -> None:
    for path, cache in (
        ("/orders/1", "no-cache"),
        ("/sw.js", "no-cache"),
        ("/assets/index-DiwrgTda.js", "public, max-age=31536000, immutable"),
    ):
        status, headers, _body = ask("web.test", path)
        assert (status, headers["cache-control"]) == (200, cache)
    assert ask("web.test", "/assets/index-00000000.js")[0] == 404
    assert ask("web.test", "/.env")[0] == 404
    assert ask("web.test", "/assets/index-DiwrgTda.js", Accept_Encoding="gzip")[1]["content-encoding"] == "gzip"


def test_the_proxy_says_who_asked_and_cannot_be_lied_to() -> None:
    seen = json.loads(ask("api.test", "/x?y=1", X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6")[2])
    assert seen["path"] == "/x?y=1"
    assert seen["headers"]["host"] == "api.test"
    assert seen["headers"]["x-forwarded-proto"] == "https"
    assert "6.6.6.6" not in json.dumps(seen)
    assert seen["headers"]["x-forwarded-for"] == connect("api.test").getsockname()[0]


def test_a_websocket_echoes() -> None:
    with connect("api.test") as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            (
                "GET /ws HTTP/1.1\r\nHost: api.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )
        # Through the proxy the head and the frame may come together or apart.
        stream = connection.makefile("rb")
        assert b"101" in stream.readline()
        while stream.readline().strip():
            pass
        mask, data = b"\x01\x02\x03\x04", b"hello"
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        connection.sendall(bytes([0x81, 0x80 | len(data)]) + mask + masked)
        assert stream.read(2 + len(data)) == bytes([0x81, len(data)]) + data


def test_too_many_requests_are_told_so() -> None:
    statuses = [ask("limited.test", "/")[0] for _ in range(6)]
    assert statuses[-1] == 429
    assert set(statuses) <= {200, 429}


def test_a_large_body_is_refused() -> None:
    assert ask("api.test", "/", method="POST", body=b"x" * 1000)[0] == 200
    # It is refused by what its head says, before it is sent.
    with connect("api.test") as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1100000\r\n\r\n")
        assert b" 413 " in connection.makefile("rb").readline()
    with connect("api.test") as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(20):
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.makefile("rb").readline()


def test_a_path_goes_to_another_https_server_only_with_a_certificate_to_trust() -> None:
    # It is found by its name and TLS is spoken to it; its placeholder certificate is not believed.
    assert ask("api.test", "/elsewhere/x")[0] in (500, 502)


def test_only_the_ports_of_the_web_are_open() -> None:
    for port in (8080, 8081, 8082):
        with pytest.raises(OSError):
            socket.create_connection((ADDRESS, port), 2)


def test_http2_is_spoken() -> None:
    with connect("api.test", alpn=("h2", "http/1.1")) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() == "TLSv1.3"
