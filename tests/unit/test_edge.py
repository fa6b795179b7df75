"""What a visitor sees does not depend on the proxy: each question is put to a real nginx and to a real Traefik."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ContextManager, Union

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter import nginx as nginx_filters
from ansible_collections.shipshape.droplet.plugins.filter import traefik as traefik_filters
from ansible_collections.shipshape.droplet.plugins.plugin_utils import site as sites_of_both
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

from tests.unit.inventory_cases import insightpulse
from tests.unit.nginx_lab import Nginx, Upstream, free_port, make_certificate
from tests.unit.traefik_lab import Traefik, settings

PASSWORD = "correct horse battery staple"
ORIGIN = "https://app.malar.in"


Proxy = Union[Nginx, Traefik]
Serve = Callable[..., ContextManager[Proxy]]


@pytest.fixture(params=["nginx", "traefik"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Runs the proxy in question with sites."""

    @contextlib.contextmanager
    def by_nginx(*sites: dict[str, Any], trusted: Path | None = None) -> Iterator[Proxy]:
        variables = {"nginx_sites": list(sites), "nginx_resolvers": [], "__nginx_own_addresses": []}
        with Nginx(tmp_path, variables, trusted=trusted).running() as nginx:
            yield nginx

    @contextlib.contextmanager
    def by_traefik(*sites: dict[str, Any], trusted: Path | None = None) -> Iterator[Proxy]:
        traefik = Traefik(tmp_path, sites, trusted_root=trusted)
        with traefik.file_server(), traefik.running():
            assert traefik.errors() == []
            yield traefik

    return by_nginx if request.param == "nginx" else by_traefik


def app(port: int, **more: Any) -> dict[str, Any]:
    upstreams = [f"127.0.0.1:{port}"]
    return {"name": "api", "domains": ["api.test"], "proxy": {"upstreams": upstreams, "websockets": ["/ws"]}, **more}


def login(name: str = "ops", password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# ---- where a path goes


def test_a_path_goes_to_the_host_with_the_higher_priority_then_the_longer_path(serve: Serve) -> None:
    with Upstream() as web, Upstream() as short, Upstream() as long, Upstream() as first:
        site = app(
            web.port,
            locations=[
                {"path": "/odoo", "upstream": f"http://127.0.0.1:{short.port}"},
                {"path": "/odoo/v2", "upstream": f"http://127.0.0.1:{long.port}"},
                {"path": "/first", "upstream": f"http://127.0.0.1:{first.port}", "priority": 20},
                {"path": "/first/x", "upstream": f"http://127.0.0.1:{short.port}"},
            ],
        )
        with serve(site) as proxy:
            for path in ("/", "/odoofoo", "/odoo", "/odoo/x?y=1", "/odoo/v2/z", "/odoo/v22", "/first/x/y"):
                assert proxy.get("api.test", path).status == 200
            assert proxy.get("api.test", "/odoo/.env").status == 404
    asked = [[path for path, _headers in host.requests] for host in (web, short, long, first)]
    assert asked == [["/", "/odoofoo"], ["/odoo", "/odoo/x?y=1", "/odoo/v22"], ["/odoo/v2/z"], ["/first/x/y"]]


@pytest.mark.parametrize(
    ("strip", "base", "asked", "got"),
    [
        (True, "", "/odoo", "/"),
        (True, "", "/odoo/web/a%20b?c=d", "/web/a%20b?c=d"),
        (False, "", "/odoo/web", "/odoo/web"),
        (False, "/base", "/odoo/web?c=d", "/base/web?c=d"),
        (True, "/base", "/odoo/web", "/base/web"),
    ],
)
def test_a_prefix_is_stripped_and_the_other_host_told_of_it(
    serve: Serve, strip: bool, base: str, asked: str, got: str
) -> None:
    with Upstream() as other:
        upstream = f"http://127.0.0.1:{other.port}{base}"
        named = {"X-Script-Name": '/odoo "$x"'}
        location = {"path": "/odoo", "upstream": upstream, "strip": strip, "request_headers": named}
        with serve(app(1, locations=[location])) as proxy:
            proxy.get("api.test", asked, X_Forwarded_Prefix="/lie", X_Script_Name="/lie")
    path, headers = other.requests[0]
    assert path == got
    assert headers["x-script-name"] == '/odoo "$x"'
    assert headers.get("x-forwarded-prefix", "") == ("/odoo" if strip else "")
    assert (headers["host"], headers["x-forwarded-host"]) == (f"127.0.0.1:{other.port}", "api.test")


@pytest.mark.parametrize("name", ["localhost", "wrong.test"])
def test_a_whole_site_goes_to_another_https_host_that_proves_its_name(serve: Serve, tmp_path: Path, name: str) -> None:
    certificate = tmp_path / "other"
    certificate.mkdir()
    make_certificate(certificate, name)
    with Upstream(tls=certificate) as other:
        route = {"upstream": f"https://localhost:{other.port}/base", "max_body_size": "1k"}
        site = {"name": "far", "domains": ["far.test"], "route": route}
        with serve(site, trusted=certificate / "cert.pem") as proxy:
            statuses = [
                proxy.get("far.test", "/x?y=1", X_Forwarded_For="6.6.6.6").status,
                proxy.get("far.test", "/", method="GET", body=b"x" * 1025).status,
            ]
    if name == "wrong.test":
        assert other.requests == [] and statuses[0] in (500, 502)
        return
    assert statuses == [200, 413]
    ((path, headers),) = other.requests
    assert (path, set(other.names)) == ("/base/x?y=1", {"localhost"})
    assert (headers["host"], headers["x-forwarded-host"]) == (f"localhost:{other.port}", "far.test")
    assert headers["x-forwarded-for"] == "127.0.0.1"


def test_a_websocket_is_asked_of_another_host_too(serve: Serve) -> None:
    with Upstream() as web, Upstream() as other:
        location = {"path": "/bus", "upstream": f"http://127.0.0.1:{other.port}"}
        with serve(app(web.port, locations=[location])) as proxy:
            for path in ("/bus", "/bus/x", "/ws"):
                proxy.get("api.test", path, Upgrade="websocket", Connection="upgrade")
    asked = [[(path, headers.get("upgrade")) for path, headers in host.requests] for host in (other, web)]
    assert asked == [[("/bus", "websocket"), ("/bus/x", "websocket")], [("/ws", "websocket")]]


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-For", "connection"])
def test_a_header_that_the_proxy_sets_is_nobody_elses(name: str) -> None:
    site = app(1, locations=[{"path": "/x", "upstream": "https://y.test", "request_headers": {name: "z"}}])
    with pytest.raises(AnsibleFilterError, match="the proxy itself sets"):
        nginx_filters.nginx_files([site])
    with pytest.raises(AnsibleFilterError, match="the proxy itself sets"):
        traefik_filters.traefik_site(site, settings())


# ---- what scripts of other sites may do


def test_scripts_of_named_origins_may_ask_and_no_others(serve: Serve) -> None:
    with Upstream({"Access-Control-Allow-Origin": "*"}) as upstream:
        with serve(app(upstream.port, cors={"origins": [ORIGIN, "https://b.test"]})) as proxy:
            friend = proxy.get("api.test", "/", Origin=ORIGIN)
            stranger = proxy.get("api.test", "/", Origin="https://evil.test")
            nobody = proxy.get("api.test", "/")
            first, refused = (
                proxy.get("api.test", "/x", method="OPTIONS", Origin=origin, Access_Control_Request_Method="PUT")
                for origin in (ORIGIN, "https://evil.test")
            )
    assert friend.header("Access-Control-Allow-Origin") == ORIGIN
    assert "Origin" in (friend.header("Vary") or "")
    assert [answer.header("Access-Control-Allow-Origin") for answer in (stranger, nobody, refused)] == [None] * 3
    assert (first.status, refused.status) == (200, 200)
    assert first.header("Access-Control-Allow-Origin") == ORIGIN
    assert first.header("Access-Control-Allow-Methods") == "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"
    assert first.header("Access-Control-Allow-Headers") == "Authorization,Content-Type"
    assert first.header("Access-Control-Max-Age") == "600"
    assert friend.header("Access-Control-Allow-Methods") is None
    # The application never hears of what browsers ask first.
    assert len(upstream.requests) == 3


def test_origins_may_do_what_is_said(serve: Serve) -> None:
    cors = {"origins": [ORIGIN], "methods": ["GET"], "headers": ["X-Key"]}
    with serve(app(1, cors=cors)) as proxy:
        first = proxy.get("api.test", "/", method="OPTIONS", Origin=ORIGIN, Access_Control_Request_Method="GET")
    assert first.header("Access-Control-Allow-Methods") == "GET"
    assert first.header("Access-Control-Allow-Headers") == "X-Key"


# ---- how often


def test_a_limit_of_a_path_holds_beside_that_of_the_site(serve: Serve) -> None:
    site_and_path = {
        "rate_limit": {"per_minute": 6, "burst": 9},
        "rate_limits": {"/token": {"per_minute": 5, "burst": 1}, "/functions": {"per_minute": 200, "burst": 20}},
    }
    with Upstream() as upstream, serve(app(upstream.port, **site_and_path)) as proxy:
        token = [proxy.get("api.test", path) for path in ("/token", "/token/x", "/token?y", "/token")]
        other = [proxy.get("api.test", path).status for path in ("/tokens", "/functions/a", "/", "/", "/", "/", "/")]
        last = proxy.get("api.test", "/")
    assert [answer.status for answer in token] == [200, 200, 429, 429]
    # What the path's limit refuses may count for the site's or not; ten at the most pass.
    assert other[:3] == [200, 200, 200] and other.count(429) <= 3
    assert last.status in (200, 429)
    assert int(token[2].header("Retry-After") or 0) in range(1, 61)
    assert len(upstream.requests) <= 10


def test_a_limit_counts_all_paths_of_a_site_together(serve: Serve) -> None:
    with Upstream() as upstream:
        locations = [{"path": "/else", "upstream": f"http://127.0.0.1:{upstream.port}"}]
        with serve(app(upstream.port, locations=locations, rate_limit={"per_minute": 6, "burst": 3})) as proxy:
            statuses = [proxy.get("api.test", path).status for path in ("/", "/else", "/ws", "/else/x", "/", "/else")]
    assert statuses == [200, 200, 200, 200, 429, 429]


def test_a_limit_of_a_path_holds_also_where_another_host_answers_it(serve: Serve) -> None:
    with Upstream() as upstream:
        locations = [{"path": "/api", "upstream": f"http://127.0.0.1:{upstream.port}", "strip": True}]
        limits = {"/api/token": {"per_minute": 6, "burst": 0}}
        with serve(app(upstream.port, locations=locations, rate_limits=limits)) as proxy:
            statuses = [proxy.get("api.test", path).status for path in ("/api/token", "/api/token", "/api/x", "/token")]
    assert statuses == [200, 429, 200, 200]
    assert [path for path, _headers in upstream.requests] == ["/token", "/x", "/token"]


def test_limits_of_several_periods_hold_together(serve: Serve) -> None:
    limit = {"per_second": 50, "per_minute": 600, "per_hour": 60, "burst": 2}
    with Upstream() as upstream, serve(app(upstream.port, rate_limit=limit)) as proxy:
        statuses = [proxy.get("api.test", "/").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


# ---- who


def test_a_password_is_asked_for_on_the_whole_site_but_not_for_its_health(serve: Serve) -> None:
    with Upstream() as upstream:
        site = app(upstream.port, basic_auth={"users": {"ops": PASSWORD, "b": "another one, long"}}, health="/health")
        with serve(site) as proxy:
            refused = proxy.get("api.test", "/")
            statuses = [
                proxy.get("api.test", "/", Authorization=header).status
                for header in (login(), login("b", "another one, long"), login("ops", "wrong"), login("b"), "Bearer x")
            ]
            assert proxy.get("api.test", "/health").status == 200
            assert proxy.get("api.test", "/health/x").status == 401
    assert (refused.status, refused.header("WWW-Authenticate")) == (401, 'Basic realm="Restricted"')
    assert statuses == [200, 200, 401, 401, 401]
    # It is the proxy's business, and the application's users have other names.
    assert PASSWORD not in json.dumps(upstream.requests) and "authorization" not in upstream.requests[0][1]


def test_a_password_is_asked_for_on_the_named_paths_only(serve: Serve) -> None:
    with Upstream() as upstream:
        auth = {"users": {"ops": PASSWORD}, "paths": ["/admin", "/api/internal"]}
        with serve(app(upstream.port, basic_auth=auth)) as proxy:
            paths = ("/admin", "/admin/x", "/%61dmin", "/x/../admin", "/api/internal/y", "/administration", "/", "/ws")
            statuses = [proxy.get("api.test", path).status for path in paths]
            # However it is written: nobody comes to it without a password.
            for path in ("//admin", "/%2fadmin", "/x/%2e%2e/admin", "/admin?x", "/admin#x", "/x/..%2fadmin"):
                assert proxy.get("api.test", path).status in (400, 401, 404), path
            proxy.get("api.test", "/", Authorization="Bearer token")
            assert proxy.get("api.test", "/admin", Authorization=login()).status == 200
    assert statuses == [401, 401, 401, 401, 401, 200, 200, 200]
    assert upstream.requests[-2][1]["authorization"] == "Bearer token"


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 200), ("127.0.0.1", 200), ("198.51.100.0/24", 403)])
def test_only_the_listed_addresses_may_come(serve: Serve, network: str, status: int) -> None:
    with Upstream() as upstream, serve(app(upstream.port, allow=[network, "2001:db8::/32"], health="/health")) as proxy:
        assert proxy.get("api.test", "/").status == status
        assert proxy.get("api.test", "/ws", X_Forwarded_For="198.51.100.1").status == status
        assert proxy.get("api.test", "/health").status == 200
        assert proxy.get("api.test", "/x", tls=False).status == 301


# ---- what all answers say


def test_headers_of_a_site_go_before_defaults_and_before_what_the_application_says(serve: Serve) -> None:
    policy = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' https://data.portun.app; img-src 'self' data: https:"
    )
    headers = {"Content-Security-Policy": policy, "x-frame-options": "DENY", "Permissions-Policy": ""}
    own = {"Content-Security-Policy": "default-src 'none'", "X-Frame-Options": "ALLOWALL"}
    with Upstream(own) as upstream, serve(app(upstream.port, headers=headers)) as proxy:
        answer = proxy.get("api.test", "/")
    assert answer.header("Content-Security-Policy") == policy
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("Permissions-Policy") is None
    assert answer.header("X-Content-Type-Options") == "nosniff"


# ---- when there is nothing


def test_an_application_that_is_down_has_a_page_of_ours(serve: Serve) -> None:
    with serve(app(free_port(), locations=[{"path": "/x", "upstream": f"http://127.0.0.1:{free_port()}"}])) as proxy:
        for path in ("/", "/x/y"):
            for method in ("GET", "POST"):
                answer = proxy.get("api.test", path, method=method)
                assert answer.status == 502
                assert (answer.header("Content-Type") or "").startswith("text/html")
                assert b"does not answer at the moment" in answer.body and b"nginx" not in answer.body
                assert answer.header("Strict-Transport-Security") == "max-age=31536000"


def test_what_an_application_says_of_its_own_trouble_is_passed_on(serve: Serve) -> None:
    with Upstream(status=503, answer={"Retry-After": "7"}) as upstream, serve(app(upstream.port)) as proxy:
        answer = proxy.get("api.test", "/")
    assert (answer.status, answer.body, answer.header("Retry-After")) == (503, b"ok", "7")


@pytest.mark.parametrize("message", ["", 'Back at 18:00 <soon> & "well".\nÄpfel $x'])
def test_a_closed_site_tells_everybody_to_come_again_but_the_health_check(serve: Serve, message: str) -> None:
    with Upstream() as upstream:
        site = app(
            upstream.port,
            maintenance={"message": message},
            health="/health",
            basic_auth={"users": {"ops": PASSWORD}},
            rate_limit={"per_minute": 6},
            locations=[{"path": "/x", "upstream": f"http://127.0.0.1:{upstream.port}"}],
        )
        with serve(site) as proxy:
            for path, method in (("/", "GET"), ("/x/y", "POST"), ("/ws", "GET"), ("/health/x", "GET")):
                answer = proxy.get("api.test", path, method=method)
                assert (answer.status, answer.header("Retry-After")) == (503, "120")
                assert (answer.header("Content-Type") or "").startswith("text/html")
                text = answer.body.decode()
                assert ("&lt;soon&gt; &amp; &quot;well&quot;.<br>\nÄpfel $x" if message else "come again") in text
            assert proxy.get("api.test", "/health").status == 200
            assert proxy.get("api.test", "/shipshape-maintenance.html").status in (404, 503)
            assert proxy.get("api.test", "/x", tls=False).status == 301
    assert [path for path, _headers in upstream.requests] == ["/health"]


def test_a_closed_site_of_files_shows_none(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text("open")
    files = {"root": str(tmp_path / "public")}
    closed = {"name": "web", "domains": ["web.test"], "static": files, "maintenance": {"message": ""}}
    other = {"name": "other", "domains": ["other.test"], "static": files}
    with serve(closed, other) as proxy:
        assert proxy.get("web.test", "/").status == 503
        assert proxy.get("other.test", "/").body == b"open"


# ---- secrets


def test_a_password_file_is_secret_and_the_same_in_each_run() -> None:
    site = app(1, basic_auth={"users": {"ops": PASSWORD}})
    files = nginx_filters.nginx_files([site]) + traefik_filters.traefik_files([site], settings())
    assert PASSWORD not in str(files)
    with_hashes = [entry for entry in files if "$2b$" in str(entry)]
    assert [(entry["path"], entry["mode"], entry["secret"]) for entry in with_hashes] == [
        ("/etc/nginx/shipshape/users/api", "0640", True),
        ("/etc/traefik/declared/users-api.yml", "0640", True),
    ]
    sites_of_both.password_hash.cache_clear()
    assert nginx_filters.nginx_files([site]) == files[: len(nginx_filters.nginx_files([site]))]
    hashes = {sites_of_both.password_hash(whose, PASSWORD) for whose in ("a.test ops", "b.test ops", "a.test dev")}
    assert len({re.split(r"\$", one)[3][:22] for one in hashes}) == 3


@pytest.mark.parametrize(
    ("users", "message"),
    [({"a:b": PASSWORD}, "a user whose name"), ({"ops": "ä" * 37}, "more than 72 bytes")],
)
def test_a_user_that_a_password_file_cannot_hold_is_refused_without_the_password(
    users: dict[str, str], message: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as refused:
        nginx_filters.nginx_files([app(1, basic_auth={"users": users})])
    assert not any(password in str(refused.value) for password in users.values())


# ---- system 1


def test_insightpulse_is_routed_by_path_to_other_hosts_under_either_proxy(serve: Serve) -> None:
    """As its inventory has it, with programs that remember what they heard in place of the other hosts."""
    apps = insightpulse()
    app = apps["insightpulse"]
    with Upstream() as web, Upstream() as odoo, Upstream() as superset:
        app["url"] = f"http://127.0.0.1:{web.port}"
        app["locations"]["/odoo"]["url"] = f"http://127.0.0.1:{odoo.port}"
        apps["superset"]["port"] = superset.port
        sites = plan(apps, Topology(("proxy1",), ("proxy1",), ()), "proxy1")["nginx_sites"]
        origin = "https://app.insightpulseai.net"
        with serve(*sites) as proxy:
            for path in ("/", "/about?x=1", "/odoo/web/health", "/odoo", "/odoofoo", "/superset/api/v1"):
                answer = proxy.get("insightpulseai.net", path, Origin=origin)
                assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (200, origin)
            assert answer.header("Strict-Transport-Security") == "max-age=31536000"
            statuses: list[int] = []
            # Twenty are enough where the machine is not so slow that it asks no faster than it may.
            while 429 not in statuses and len(statuses) < 60:
                statuses.append(proxy.get("insightpulseai.net", "/").status)
    assert [path for path, _headers in web.requests][:3] == ["/", "/about?x=1", "/odoofoo"]
    assert [path for path, _headers in odoo.requests] == ["/web/health", "/"]
    assert [path for path, _headers in superset.requests] == ["/superset/api/v1"]
    assert superset.requests[0][1]["x-script-name"] == "/superset"
    assert "x-script-name" not in odoo.requests[0][1] and odoo.requests[0][1]["host"] == f"127.0.0.1:{odoo.port}"
    # 100 a minute, 20 at once beyond the first.
    assert 429 in statuses and statuses.count(200) >= 14


@pytest.mark.parametrize(
    "path", ["/.env", "/%2eenv", "/%2f.env", "/a%2f.env", "/a/.git/x", "/a%2f..%2f.env", "/%2F%2Eenv"]
)
def test_a_hidden_file_is_nobodys_business_however_it_is_written(serve: Serve, tmp_path: Path, path: str) -> None:
    for name in ("public/.env", "public/a/.env", "public/a/.git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("SECRET=1")
    site = {"name": "web", "domains": ["web.test"], "static": {"root": str(tmp_path / "public"), "spa": True}}
    with serve(site) as proxy:
        answer = proxy.get("web.test", path)
    assert answer.status in (400, 404) and b"SECRET" not in answer.body


def test_a_guarded_path_of_a_site_of_files_is_guarded_however_it_is_written(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "public" / "admin").mkdir(parents=True)
    (tmp_path / "public" / "admin" / "index.html").write_text("SECRET=1")
    auth = {"users": {"ops": PASSWORD}, "paths": ["/admin"]}
    files = {"root": str(tmp_path / "public")}
    with serve({"name": "web", "domains": ["web.test"], "static": files, "basic_auth": auth}) as proxy:
        for path in ("/admin/", "//admin/", "/%2fadmin/", "/admin%2findex.html", "/x%2f..%2fadmin/", "/%2e/admin/"):
            answer = proxy.get("web.test", path)
            assert answer.status in (400, 401, 404) and b"SECRET" not in answer.body, path
        assert proxy.get("web.test", "/admin/", Authorization=login()).body == b"SECRET=1"
