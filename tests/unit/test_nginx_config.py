"""The nginx role's configuration, rendered by Ansible and run by a real nginx."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter import nginx as filters
from ansible_collections.shipshape.droplet.plugins.module_utils import app_proxy

from tests.unit.nginx_lab import FACTS, Nginx, Upstream, evaluate, free_port, make_certificate, render_all

BUNDLE = "console.log('asset');\n" * 200


def static_site(root: Path, **more: Any) -> dict[str, Any]:
    return {"name": "web", "domains": ["web.test"], "static": {"root": str(root), "spa": True}, **more}


def proxy_site(*ports: int, **more: Any) -> dict[str, Any]:
    upstreams = [f"127.0.0.1:{port}" for port in ports]
    return {"name": "api", "domains": ["api.test"], "proxy": {"upstreams": upstreams, "websockets": ["/ws"]}, **more}


@pytest.fixture
def web_root(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    for name, text in {
        "index.html": "<title>app</title>",
        "sw.js": "self",
        "manifest.json": "{}",
        "assets/index-DiwrgTda.js": BUNDLE,
        "assets/logo-horizontal.svg": "<svg/>",
        "static/js/main.0a1b2c3d.js": BUNDLE,
        ".env": "SECRET=1",
        ".git/config": "[core]",
        ".well-known/security.txt": "Contact: x",
        "docs/index.html": "docs",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def web(tmp_path: Path, web_root: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path, {"nginx_sites": [static_site(web_root)]}).running() as nginx:
        yield nginx


@pytest.mark.parametrize("policy", ["intermediate", "modern"])
@pytest.mark.parametrize("sites", ["none", "all kinds"])
def test_nginx_accepts_the_configuration_without_a_warning(
    tmp_path: Path, web_root: Path, policy: str, sites: str
) -> None:
    everything = [
        static_site(web_root, redirect_domains=["www.web.test"], headers={"Content-Security-Policy": "a 'b' \"c$d\""}),
        {"name": "plain.site", "domains": ["plain.test"], "static": {"root": str(web_root)}, "hsts": False},
        proxy_site(
            1, 2, rate_limit={"per_minute": 60, "burst": 5}, locations=[{"path": "/x", "upstream": "https://y.test/z"}]
        ),
    ]
    nginx = Nginx(tmp_path, {"nginx_tls_policy": policy, "nginx_sites": everything if sites != "none" else []})
    result = nginx.test()
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr


def test_a_directive_nginx_does_not_know_is_refused_by_this_very_test(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, {})
    nginx.config.write_text(nginx.config.read_text().replace("gzip_vary on;", "gzip_varied on;"))
    assert nginx.test().returncode != 0


@pytest.mark.parametrize(
    ("version", "listen", "directive", "rejects"),
    [("1.18", "ssl http2", False, False), ("1.22", "ssl http2", False, True), ("1.25.0", "ssl http2", False, True),
     ("1.25.1", "ssl;", True, True), ("1.26", "ssl", True, True), ("1.28", "ssl", True, True)],
)  # fmt: skip
def test_each_version_gets_the_http2_and_default_server_it_understands(
    version: str, listen: str, directive: bool, rejects: bool
) -> None:
    files = render_all({"nginx_version": version, "nginx_sites": [static_site(Path("/srv/web"))]})
    site = files["/etc/nginx/shipshape/sites/web.conf"]
    assert f"listen 443 {listen}" in site
    assert ("http2" in site) is not directive
    assert ("http2 on;" in files["/etc/nginx/nginx.conf"]) is directive
    default = files["/etc/nginx/shipshape/default.conf"]
    assert ("ssl_reject_handshake on;" in default) is rejects
    assert ("/etc/shipshape/tls/default/fullchain.pem" in default) is not rejects


@pytest.mark.parametrize(("version", "speaks"), [("1.24", False), ("1.26", True), ("1.28", True)])
def test_http3_is_spoken_where_it_is_wanted_and_nginx_can(version: str, speaks: bool) -> None:
    site = static_site(Path("/srv/web"), redirect_domains=["www.web.test"])
    wanted = {"nginx_version": version, "nginx_sites": [site], "nginx_http3": True}
    files = render_all(wanted)
    servers = files["/etc/nginx/shipshape/sites/web.conf"]
    assert servers.count("listen 443 quic;") == servers.count("add_header Alt-Svc") == (2 if speaks else 0)
    assert ("listen 443 quic reuseport default_server;" in files["/etc/nginx/shipshape/default.conf"]) is speaks
    for text in render_all({**wanted, "nginx_http3": False}).values():
        assert "quic" not in text and "Alt-Svc" not in text


def test_whom_the_proxy_bans_cannot_come_by_http3() -> None:
    for http3, ports in ((True, [443]), (False, [])):
        jails = evaluate("{{ nginx_export_jails }}", {"nginx_http3": http3})
        assert [jail["udp_ports"] for jail in jails] == [ports] * 3


@pytest.mark.parametrize(
    ("distribution", "release", "version"),
    [
        ("Debian", "11", "1.18"),
        ("Debian", "12", "1.22"),
        ("Debian", "13", "1.26"),
        ("Ubuntu", "22.04", "1.18"),
        ("Ubuntu", "24.04", "1.24"),
    ],
)
def test_the_version_follows_from_the_release(distribution: str, release: str, version: str) -> None:
    facts = {
        **FACTS,
        "distribution": distribution,
        "distribution_version": release,
        "distribution_major_version": release.split(".")[0],
    }
    assert evaluate("{{ nginx_version }}", {"ansible_facts": facts}) == version
    assert evaluate("{{ nginx_version }}", {"ansible_facts": facts, "nginx_origin": "upstream"}) == "1.28"


@pytest.mark.parametrize(
    ("distribution", "release", "origin", "has"),
    [
        ("Debian", "11", "distribution", False),
        ("Debian", "12", "distribution", True),
        ("Ubuntu", "22.04", "distribution", False),
        ("Ubuntu", "24.04", "distribution", True),
        ("Debian", "13", "upstream", False),
    ],
)
def test_brotli_is_there_where_the_distribution_has_it(distribution: str, release: str, origin: str, has: bool) -> None:
    facts = {"distribution_version": release, "distribution_major_version": release.split(".")[0]}
    variables = {"ansible_facts": {**FACTS, "distribution": distribution, **facts}, "nginx_origin": origin}
    assert ("libnginx-mod-http-brotli-filter" in evaluate("{{ nginx_export_packages }}", variables)) is has
    assert ("brotli on;" in render_all(variables)["/etc/nginx/nginx.conf"]) is has


def test_ipv6_is_listened_on_only_where_the_host_has_it() -> None:
    without = "".join(render_all({"nginx_sites": [static_site(Path("/srv/web"))]}).values())
    with_it = "".join(render_all({"nginx_sites": [static_site(Path("/srv/web"))], "nginx_ipv6": True}).values())
    assert "[::]" not in without
    # What is for the droplet itself stays on the loopback interface.
    assert with_it.count("listen [::]:") == with_it.count("listen 80") + with_it.count("listen 443") > 0


def test_http_answers_challenges_and_sends_the_rest_to_https(web: Nginx) -> None:
    challenge = web.root / "acme/.well-known/acme-challenge/token"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("proof")
    for name in ("web.test", "not-yet-a-site.test"):
        assert web.get(name, "/.well-known/acme-challenge/token", tls=False).body == b"proof"
    answer = web.get("web.test", "/a?b=c", tls=False)
    assert (answer.status, answer.header("Location")) == (301, "https://web.test/a?b=c")
    assert answer.header("Strict-Transport-Security") is None


def test_unknown_names_get_no_answer(web: Nginx) -> None:
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        web.get("unknown.test", "/", tls=False)
    with pytest.raises(ssl.SSLError):
        web.get("unknown.test", "/")


def test_a_site_on_an_address_is_reached_without_a_server_name_and_has_no_hsts(tmp_path: Path, web_root: Path) -> None:
    site = static_site(web_root, domains=["127.0.0.1"], self_signed=True)
    with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
        raw = socket.create_connection(("127.0.0.1", nginx.https), 5)
        tls = ssl._create_unverified_context().wrap_socket(raw)
        tls.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: tls.recv(4096), b"")).decode()
    assert text.startswith("HTTP/1.1 200")
    assert "Strict-Transport-Security" not in text


def test_redirect_domains_lead_to_the_first_domain(tmp_path: Path, web_root: Path) -> None:
    site = static_site(web_root, domains=["web.test", "also.test"], redirect_domains=["www.web.test"])
    with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
        # First to TLS on the same name, which a preloaded HSTS asks for, then to the other.
        assert nginx.get("www.web.test", "/a?b", tls=False).header("Location") == "https://www.web.test/a?b"
        answer = nginx.get("www.web.test", "/a?b")
        assert (answer.status, answer.header("Location")) == (301, "https://web.test/a?b")
        assert answer.header("Strict-Transport-Security") == "max-age=31536000"
        assert nginx.get("also.test", "/").status == 200


@pytest.mark.parametrize("path", ["/", "/sw.js", "/assets/index-DiwrgTda.js", "/missing.js", "/.env"])
def test_security_headers_are_on_every_answer(web: Nginx, path: str) -> None:
    answer = web.get("web.test", path)
    assert answer.header("Strict-Transport-Security") == "max-age=31536000"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("X-Frame-Options") == "SAMEORIGIN"
    assert answer.header("Referrer-Policy") == "strict-origin-when-cross-origin"
    assert answer.header("Permissions-Policy")
    assert answer.header("Server") == "nginx"


def test_hsts_says_what_is_set() -> None:
    hsts = {"max_age": 100, "include_subdomains": True, "preload": True}
    text = render_all({"nginx_hsts": hsts, "nginx_sites": [static_site(Path("/srv/web"))]})[
        "/etc/nginx/shipshape/sites/web.conf"
    ]
    assert '"max-age=100; includeSubDomains; preload" always;' in text


@pytest.mark.parametrize(
    ("path", "cache"),
    [("/", "no-cache"), ("/some/page", "no-cache"), ("/index.html", "no-cache"),
     ("/sw.js", "no-cache"), ("/manifest.json", "no-cache"),
     ("/assets/index-DiwrgTda.js", "public, max-age=31536000, immutable"),
     ("/static/js/main.0a1b2c3d.js", "public, max-age=31536000, immutable"), ("/assets/logo-horizontal.svg", None)],
)  # fmt: skip
def test_cache_rules_of_a_static_site(web: Nginx, path: str, cache: str | None) -> None:
    answer = web.get("web.test", path)
    assert answer.status == 200
    assert answer.header("Cache-Control") == cache


def test_spa_pages_fall_back_to_the_application_but_missing_files_do_not(web: Nginx) -> None:
    assert web.get("web.test", "/orders/17").body == b"<title>app</title>"
    assert web.get("web.test", "/docs/").body == b"docs"
    missing = web.get("web.test", "/assets/index-0ldHash1.js")
    assert missing.status == 404
    assert missing.header("Cache-Control") is None


def test_an_empty_spa_root_is_a_404_and_no_loop(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    with Nginx(tmp_path, {"nginx_sites": [static_site(tmp_path / "public")]}).running() as nginx:
        assert nginx.get("web.test", "/x").status == 404


def test_a_site_without_spa_has_its_own_404(tmp_path: Path, web_root: Path) -> None:
    (web_root / "404.html").write_text("nothing here")
    (web_root / "about.html").write_text("about")
    site = static_site(web_root, static={"root": str(web_root)})
    with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
        answer = nginx.get("web.test", "/some/page")
        assert (answer.status, answer.body) == (404, b"nothing here")
        assert nginx.get("web.test", "/about").body == b"about"


def test_hidden_files_are_not_served(web: Nginx) -> None:
    assert web.get("web.test", "/.env").status == 404
    assert web.get("web.test", "/.git/config").status == 404
    assert web.get("web.test", "/.well-known/security.txt").status == 200


def test_text_is_compressed(web: Nginx) -> None:
    answer = web.get("web.test", "/assets/index-DiwrgTda.js", Accept_Encoding="gzip")
    assert answer.header("Content-Encoding") == "gzip"
    assert len(answer.body) < len(BUNDLE) / 5


def test_the_client_cannot_pretend_to_be_another(tmp_path: Path) -> None:
    with Upstream() as app, Nginx(
        tmp_path, {"nginx_sites": [proxy_site(app.port)], "__nginx_own_addresses": []}
    ).running() as nginx:
        nginx.get("api.test", "/x", X_Forwarded_For="6.6.6.6", X_Real_IP="6.6.6.6", X_Forwarded_Proto="http",
                  X_Forwarded_Host="evil.test", Forwarded="for=6.6.6.6", Proxy="http://evil.test")  # fmt: skip
    path, headers = app.requests[0]
    assert path == "/x"
    assert headers["host"] == "api.test"
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == "api.test"
    assert "forwarded" not in headers and "proxy" not in headers


def test_a_trusted_proxy_may_say_who_the_client_is(tmp_path: Path) -> None:
    variables = {"nginx_sites": [proxy_site(0)], "__nginx_own_addresses": [], "nginx_trusted_proxies": ["127.0.0.0/8"]}
    with Upstream() as app:
        variables["nginx_sites"] = [proxy_site(app.port)]
        with Nginx(tmp_path, variables).running() as nginx:
            nginx.get("api.test", "/", X_Forwarded_For="6.6.6.6, 198.51.100.9, 127.0.0.2")
    assert app.requests[0][1]["x-forwarded-for"] == "198.51.100.9"


def test_upgrade_is_passed_only_where_a_websocket_is_declared(tmp_path: Path) -> None:
    with Upstream() as app, Nginx(tmp_path, {"nginx_sites": [proxy_site(app.port)]}).running() as nginx:
        for path in ("/ws", "/ws/room/1", "/wsx", "/"):
            nginx.get("api.test", path, Upgrade="websocket", Connection="upgrade")
    sent = {path: (headers.get("upgrade"), headers.get("connection")) for path, headers in app.requests}
    assert sent["/ws"] == sent["/ws/room/1"] == ("websocket", "upgrade")
    assert sent["/wsx"] == sent["/"] == (None, None)


def test_connections_to_the_app_are_kept(tmp_path: Path) -> None:
    with Upstream() as app:
        with Nginx(tmp_path, {"nginx_sites": [proxy_site(app.port)]}).running() as nginx:
            for _ in range(6):
                assert nginx.get("api.test", "/").status == 200
    # One for each worker at the most.
    assert len(app.requests) == 6 and len(app.connections) <= 2


def test_the_apps_own_headers_go_before_our_defaults_but_not_before_those_of_the_site(tmp_path: Path) -> None:
    own = {
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": "default-src 'none'",
        "Strict-Transport-Security": "max-age=1",
    }
    site_headers = {"content-security-policy": "default-src 'self'; report-uri /a$b", "Permissions-Policy": ""}
    with Upstream(own) as app:
        site = proxy_site(app.port, headers=site_headers)
        with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
            answer, refused = nginx.get("api.test", "/"), nginx.get("api.test", "/.env")
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("Content-Security-Policy") == "default-src 'self'; report-uri /a$b"
    assert answer.header("Strict-Transport-Security") == "max-age=31536000"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Permissions-Policy") is None
    assert refused.header("Content-Security-Policy") == "default-src 'self'; report-uri /a$b"


def test_more_requests_than_the_limit_are_told_so(tmp_path: Path) -> None:
    with Upstream() as app:
        site = proxy_site(app.port, rate_limit={"per_minute": 6, "burst": 3})
        with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
            statuses = [nginx.get("api.test", "/").status for _ in range(8)]
    assert statuses == [200] * 4 + [429] * 4
    assert len(app.requests) == 4


def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    with Upstream() as app:
        site = proxy_site(app.port)
        site["proxy"]["max_body_size"] = "1k"
        with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
            assert nginx.get("api.test", "/", body=b"x" * 1025).status == 413
            assert nginx.get("api.test", "/", body=b"x" * 1024).status == 200


@pytest.mark.parametrize(
    ("upstream_path", "asked", "got"),
    [
        ("", "/api", "/api"),
        ("", "/api/v1/a%20b?c=d", "/api/v1/a%20b?c=d"),
        ("/base", "/api/v1?c=d", "/base/v1?c=d"),
        ("/base", "/api", "/base/"),
    ],
)
@pytest.mark.parametrize("resolvers", [[], ["127.0.0.1"]])
def test_a_path_is_passed_to_another_server_under_its_name(
    tmp_path: Path, web_root: Path, upstream_path: str, asked: str, got: str, resolvers: list[str]
) -> None:
    (tmp_path / "other").mkdir()
    # With a resolver nginx looks the name up by DNS, so that case goes by address.
    name = "127.0.0.1" if resolvers else "localhost"
    make_certificate(tmp_path / "other", "localhost")
    scheme = "http" if resolvers else "https"
    with Upstream({"X-Frame-Options": "DENY"}, tls=None if resolvers else tmp_path / "other") as app:
        locations = [{"path": "/api", "upstream": f"{scheme}://{name}:{app.port}{upstream_path}"}]
        variables = {"nginx_sites": [static_site(web_root, locations=locations)], "nginx_resolvers": resolvers}
        with Nginx(tmp_path, variables, trusted=tmp_path / "other/cert.pem").running() as nginx:
            answer = nginx.get("web.test", asked)
            assert nginx.get("web.test", "/apiary").body == b"<title>app</title>"
    assert (answer.status, answer.header("X-Frame-Options")) == (200, "DENY")
    assert app.requests[0][0] == got
    assert app.requests[0][1]["host"] == f"{name}:{app.port}"
    assert app.names == ([] if resolvers else ["localhost"])


def test_cache_rules_for_files_are_not_put_on_what_another_server_answers(tmp_path: Path, web_root: Path) -> None:
    with Upstream({"Cache-Control": "private"}) as app:
        locations = [{"path": "/api", "upstream": f"http://127.0.0.1:{app.port}"}]
        with Nginx(tmp_path, {"nginx_sites": [static_site(web_root, locations=locations)]}).running() as nginx:
            assert nginx.get("web.test", "/api/manifest.json").header("Cache-Control") == "private"


def test_another_server_with_a_certificate_of_nobody_we_trust_is_not_believed(tmp_path: Path, web_root: Path) -> None:
    (tmp_path / "other").mkdir()
    make_certificate(tmp_path / "other", "localhost")
    with Upstream(tls=tmp_path / "other") as app:
        locations = [{"path": "/api", "upstream": f"https://localhost:{app.port}"}]
        variables = {"nginx_sites": [static_site(web_root, locations=locations)], "nginx_resolvers": []}
        with Nginx(tmp_path, variables).running() as nginx:
            assert nginx.get("web.test", "/api/x").status == 502
    assert app.requests == []


def test_a_name_that_cannot_be_resolved_does_not_stop_nginx(tmp_path: Path, web_root: Path) -> None:
    site = static_site(web_root, locations=[{"path": "/api", "upstream": "https://gone.invalid"}])
    with Nginx(tmp_path, {"nginx_sites": [site], "nginx_resolvers": ["127.0.0.1"]}).running() as nginx:
        assert nginx.get("web.test", "/").status == 200


@pytest.mark.parametrize(
    ("policy", "offered", "accepted"),
    [("intermediate", "-tls1_1", False), ("intermediate", "-tls1_2", True), ("intermediate", "-tls1_3", True),
     ("modern", "-tls1_2", False), ("modern", "-tls1_3", True)],
)  # fmt: skip
def test_tls_policy(tmp_path: Path, web_root: Path, policy: str, offered: str, accepted: bool) -> None:
    with Nginx(tmp_path, {"nginx_sites": [static_site(web_root)], "nginx_tls_policy": policy}).running() as nginx:
        command = [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{nginx.https}",
            "-servername",
            "web.test",
            "-cipher",
            "ALL:@SECLEVEL=0",
        ]
        result = subprocess.run([*command, offered], input=b"", capture_output=True, check=False)
    assert (result.returncode == 0) is accepted


def test_http2_is_offered(web: Nginx) -> None:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", web.https), 5) as raw, context.wrap_socket(
        raw, server_hostname="web.test"
    ) as tls:
        assert tls.selected_alpn_protocol() == "h2"


def test_the_access_log_is_one_json_object_a_line_also_for_hostile_input(web: Nginx) -> None:
    web.get("web.test", '/a"b\\', User_Agent='"}\\x')
    with socket.create_connection(("127.0.0.1", web.http), 5) as raw:
        raw.sendall(b"\x16\x03nonsense\r\n\r\n")
        raw.recv(100)
    log, deadline = web.root / "log/access.log", time.monotonic() + 5
    # A request is logged after its answer has been sent, and by whichever worker had it.
    while log.read_text().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    lines = {line["status"]: line for line in map(json.loads, log.read_text().splitlines())}
    assert lines[200]["uri"] == '/a"b\\' and lines[200]["server"] == "web.test"
    assert set(lines) == {200, 400}


def test_what_was_refused_stands_in_a_log_of_its_own_and_each_request_has_its_own_id(web: Nginx) -> None:
    """fail2ban reads that log alone, and not all that a busy site is asked."""
    for path in ("/", "/", "/.env", "/wp-login.php/.git/"):
        web.get("web.test", path)
    everything, refused, deadline = web.root / "log/access.log", web.root / "log/refused.log", time.monotonic() + 5
    while "wp-login" not in everything.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    lines = [json.loads(line) for line in everything.read_text().splitlines()]
    shown = [json.loads(line) for line in refused.read_text().splitlines()]
    assert {line["status"] for line in lines} >= {200, 404} and {line["status"] for line in shown} <= {400, 404}
    assert [line for line in lines if line["status"] in (400, 404)] == shown
    assert len({line["request_id"] for line in lines}) == len(lines)


def test_upstream_source_is_pinned_above_the_distributions(tmp_path: Path) -> None:
    assert evaluate("{{ nginx_export_sources }}", {}) == []
    source = evaluate("{{ nginx_export_sources }}", {"nginx_origin": "upstream"})[0]
    assert (source["uris"], source["suites"], source["components"]) == (
        "https://nginx.org/packages/debian",
        "bookworm",
        "nginx",
    )
    assert source["pin"] > 500 and len(source["key_fingerprints"]) == 3


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"name": "a b", "domains": ["x"], "static": {"root": "/x"}}, "becomes a file name"),
        ({"name": "a", "domains": ["x"]}, "found neither"),
        (
            {"name": "a", "domains": ["x"], "static": {"root": "/x"}, "proxy": {"upstreams": ["y"]}},
            "found static and proxy",
        ),
        ({"name": "a", "domains": [], "static": {"root": "/x"}}, "has no domains"),
        (
            {"name": "a", "domains": ["x"], "static": {"root": "/x"}, "locations": [{"path": "/b", "upstream": "c"}]},
            "https://api.example.com",
        ),
        (
            {
                "name": "a",
                "domains": ["x"],
                "static": {"root": "/x"},
                "locations": [{"path": "/", "upstream": "https://c"}],
            },
            "below /",
        ),
        (
            {"name": "a", "domains": ["x"], "static": {"root": "/x"}, "headers": {"X\nY": "1"}},
            "no name of an HTTP header",
        ),
    ],
)
def test_a_site_that_cannot_be_served_is_refused_with_its_name(site: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        filters.nginx_files([site])


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="control character"):
        filters.nginx_quote("a\r\nSet-Cookie: b")


def test_an_ipv6_address_stands_in_brackets_where_it_is_a_host() -> None:
    site = static_site(Path("/x"), domains=["2001:db8::1"], redirect_domains=["web.test"], self_signed=True)
    text = render_all({"nginx_sites": [site]})["/etc/nginx/shipshape/sites/web.conf"]
    assert "server_name [2001:db8::1];" in text and "return 301 https://[2001:db8::1]$request_uri;" in text
    assert filters.nginx_default_certificate([site], "1.26") is not None


def test_every_site_has_a_certificate_before_nginx_starts() -> None:
    sites = [
        static_site(Path("/x"), redirect_domains=["www.web.test"]),
        proxy_site(1, certificate="/c", certificate_key="/k"),
    ]
    wanted = filters.nginx_self_signed(sites, "1.22")
    assert wanted[0]["certificate"] == "/etc/shipshape/tls/web/fullchain.pem" and wanted[0]["names"] == [
        "web.test",
        "www.web.test",
    ]
    assert (wanted[1]["certificate"], wanted[1]["key"]) == ("/c", "/k")
    assert len(wanted) == 2
    assert filters.nginx_self_signed(sites, "1.18")[2]["names"] == ["default.invalid"]


@pytest.mark.parametrize("servers", [1, 2])
def test_the_log_says_whose_answer_was_missing_when_a_page_of_ours_is_shown(tmp_path: Path, servers: int) -> None:
    """A deploy watches the log for it: plugins/module_utils/app_proxy.py."""
    site = proxy_site(*(free_port() for _ in range(servers)))
    site["proxy"]["green"] = {"upstreams": ["127.0.0.1:1"], "flag": str(tmp_path / "api.green")}
    with Nginx(tmp_path, {"nginx_sites": [site]}).running() as nginx:
        assert [nginx.get("api.test", "/").status for _ in range(4)] == [502] * 4
        proxy = app_proxy.Nginx()
        proxy.declared = str(nginx.root / "etc/shipshape/upstreams")
        log, deadline = nginx.root / "log/access.log", time.monotonic() + 5
        while log.read_text().count("\n") < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
    tallies = [app_proxy.Tally(proxy.upstreams("api", colour), proxy.status) for colour in ("blue", "green")]
    for line in log.read_text().splitlines():
        for tally in tallies:
            tally.take(line)
    assert [tally.errors for tally in tallies] == [4, 0]
