"""What a client on the network sees of the sites of sites.yml: run by pytest with SHIPSHAPE_ADDRESS.

It does not know which proxy serves them. The one thing that it may see of that is the header Server.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl

import pytest

ADDRESS = os.environ.get("SHIPSHAPE_ADDRESS", "")
PASSWORD = "correct horse battery staple"


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
    for host in ("web.test", "api.test", "closed.test", "private.test"):
        status, headers, _body = ask(host, "/a?b", tls=False)
        assert (status, headers["location"]) == (301, f"https://{host}/a?b")


def test_a_challenge_is_answered_over_http_for_any_name() -> None:
    for host in ("web.test", "closed.test", "private.test", "not-yet-a-site.test"):
        status, headers, body = ask(host, "/.well-known/acme-challenge/molecule", tls=False)
        assert (status, headers["content-type"], body) == (200, "text/plain", b"proof\n")


def test_unknown_names_and_the_bare_address_get_no_answer() -> None:
    for host in ("unknown.test", ADDRESS):
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(host, "/")


def test_redirect_domains_lead_to_the_first_domain() -> None:
    for host in ("web.test", "api.test"):
        status, headers, _body = ask(f"www.{host}", "/a?b")
        assert (status, headers["location"]) == (301, f"https://{host}/a?b")


@pytest.mark.parametrize("host", ["web.test", "api.test", "down.test", "closed.test"])
def test_headers_say_what_they_must(host: str) -> None:
    _status, headers, _body = ask(host, "/")
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers.get("server") in (None, "nginx")
    assert headers.get("content-security-policy") == ("default-src 'self'" if host == "web.test" else None)


def test_a_file_that_begins_with_a_dot_is_nobodys_business() -> None:
    for path in ("/.env", "/%2eenv", "/a/.git/config", "/.well-known/.env"):
        assert ask("api.test", path)[0] == 404
    assert ask("web.test", "/.env")[0] == ask("web.test", "/elsewhere/.env")[0] == 404
    assert ask("api.test", "/.well-known/security.txt")[0] == 200


def test_the_application_is_a_single_page_with_its_cache_rules() -> None:
    for path, cache in (
        ("/", "no-cache"),
        ("/orders/1", "no-cache"),
        ("/sw.js", "no-cache"),
        ("/manifest.json", "no-cache"),
        ("/assets/index-DiwrgTda.js", "public, max-age=31536000, immutable"),
    ):
        status, headers, _body = ask("web.test", path)
        assert (status, headers["cache-control"]) == (200, cache)
    assert ask("web.test", "/assets/index-00000000.js")[0] == 404
    assert ask("web.test", "/assets/index-DiwrgTda.js", Accept_Encoding="gzip")[1]["content-encoding"] == "gzip"


def test_the_proxy_says_who_asked_and_cannot_be_lied_to() -> None:
    seen = json.loads(ask("api.test", "/x?y=1", X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6")[2])
    assert seen["path"] == "/x?y=1"
    assert seen["headers"]["host"] == "api.test"
    assert seen["headers"]["x-forwarded-proto"] == "https"
    assert "6.6.6.6" not in json.dumps(seen)
    assert seen["headers"]["x-forwarded-for"] == connect("api.test").getsockname()[0]


def test_an_app_at_a_path_is_told_so_and_takes_nothing_from_its_neighbour() -> None:
    for host in ("web.test", "nobody.test"):
        status, headers, body = ask(host, "/guest/x?y=1")
        seen = json.loads(body)
        assert (status, headers["x-frame-options"], seen["path"]) == (200, "DENY", "/x?y=1")
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert seen["headers"]["x-script-name"] == seen["headers"]["x-forwarded-prefix"] == "/guest"
        assert (ask(host, "/guest/admin/x")[0], ask(host, "/guest/health")[0]) == (401, 200)
    assert ask("web.test", "/guests")[2] == ask("web.test", "/admin")[2] == b"<title>app</title>\n"
    status, headers, _body = ask("nobody.test", "/")
    assert (status, headers["strict-transport-security"]) == (404, "max-age=31536000")


@pytest.mark.parametrize(("host", "path"), [("api.test", "/ws"), ("web.test", "/guest/ws")])
def test_a_websocket_echoes(host: str, path: str) -> None:
    with connect(host) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
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
    answers = [ask("limited.test", "/") for _ in range(6)]
    statuses = [status for status, _headers, _body in answers]
    assert statuses[-1] == 429
    assert set(statuses) <= {200, 429}
    assert 1 <= int(answers[-1][1]["retry-after"]) <= 60


def test_a_limit_of_a_path_holds_for_that_path() -> None:
    assert [ask("paths.test", path)[0] for path in ("/token", "/token/x") * 4][-1] == 429
    assert ask("paths.test", "/tokens")[0] == ask("paths.test", "/")[0] == 200


def test_a_password_is_asked_for_where_it_is_declared() -> None:
    right, wrong = (
        "Basic " + base64.b64encode(f"ops:{password}".encode()).decode() for password in (PASSWORD, "guess")
    )
    status, headers, _body = ask("paths.test", "/admin/x")
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="Restricted"')
    assert ask("paths.test", "/admin", Authorization=wrong)[0] == 401
    status, _headers, body = ask("paths.test", "/admin", Authorization=right)
    assert status == 200 and "authorization" not in json.loads(body)["headers"]


def test_others_than_the_listed_addresses_see_the_health_and_no_more() -> None:
    assert ask("private.test", "/")[0] == 403
    assert ask("private.test", "/health")[0] == 200


def test_a_closed_site_says_so_and_when_to_come_again() -> None:
    status, headers, body = ask("closed.test", "/x", method="POST", body=b"x")
    assert (status, headers["retry-after"]) == (503, "120")
    assert headers["content-type"].startswith("text/html") and b"Back at 18:00." in body
    assert ask("closed.test", "/health")[0] == 200


def test_an_application_that_is_down_has_a_page_of_ours() -> None:
    status, headers, body = ask("down.test", "/")
    assert status == 502
    assert headers["content-type"].startswith("text/html") and b"does not answer at the moment" in body


def test_scripts_of_another_site_may_ask_where_it_is_declared() -> None:
    friend, stranger = (
        ask("api.test", "/", Origin=origin)[1].get("access-control-allow-origin")
        for origin in ("https://web.test", "https://evil.test")
    )
    assert (friend, stranger) == ("https://web.test", None)
    status, headers, _body = ask(
        "api.test", "/", method="OPTIONS", Origin="https://web.test", Access_Control_Request_Method="PUT"
    )
    assert status == 200 and "PUT" in headers["access-control-allow-methods"].split(",")


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


def test_another_https_host_is_asked_when_its_certificate_is_to_be_trusted() -> None:
    for host, path in (("route.test", "/acme/local/directory"), ("web.test", "/authority/acme/local/directory")):
        status, _headers, body = ask(host, path)
        assert status == 200 and "newOrder" in json.loads(body), (host, path)
    # It is found by its name and TLS is spoken to it; its placeholder certificate is not believed.
    assert ask("web.test", "/elsewhere/x")[0] in (500, 502)


def test_only_the_ports_of_the_web_are_open() -> None:
    for port in (8080, 8081, 8082):
        with pytest.raises(OSError):
            socket.create_connection((ADDRESS, port), 2)


def test_http2_is_spoken() -> None:
    with connect("api.test", alpn=("h2", "http/1.1")) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() == "TLSv1.3"
