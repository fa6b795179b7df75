"""Several apps on one domain, each at its path: a real nginx and a real Traefik show a visitor the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter import nginx as nginx_filters
from ansible_collections.shipshape.droplet.plugins.filter import traefik as traefik_filters

from tests.unit.nginx_lab import Answer, Upstream, free_port
from tests.unit.test_edge import PASSWORD, Proxy, Serve, login, serve
from tests.unit.traefik_lab import settings

__all__ = ["serve"]

NOBODYS = {"name": "d.test", "domains": ["d.test"], "empty": True}


def at(name: str, port: int, *domains: str, **more: Any) -> dict[str, Any]:
    """An app at a path of the domain, or wherever it is said to be."""
    proxy = {"upstreams": [f"127.0.0.1:{port}"], **more.pop("proxy", {})}
    return {"name": name, "domains": list(domains) or [f"d.test/{name}"], "proxy": proxy, **more}


def paths(upstream: Upstream) -> list[str]:
    return [path for path, _headers in upstream.requests]


def test_each_app_gets_its_paths_by_priority_then_the_longer_one(serve: Serve) -> None:
    with Upstream() as own, Upstream() as elsewhere, Upstream() as a, Upstream() as b, Upstream() as c:
        location = {"upstream": f"http://127.0.0.1:{elsewhere.port}"}
        sites = [
            at(
                "own",
                own.port,
                "d.test",
                "other.test",
                locations=[{"path": "/a/far", **location}, {"path": "/c/first", **location, "priority": 30}],
            ),
            at("a", a.port),
            at("b", b.port, "d.test/a/b"),
            at("c", c.port, "D.test/c/first/x", "d.test/c", priority=20),
        ]
        with serve(*sites) as proxy:
            for path in ("/", "/ab", "/a", "/a/", "/a/x?y=1", "/a/b/z", "/a/bb", "/a/far/x", "/c/first/x/y", "/c/y"):
                assert proxy.get("d.test", path).status == 200, path
            assert proxy.get("other.test", "/a/x").status == 200
            assert proxy.get("d.test", "/a/.env").status == 404
            assert proxy.get("d.test", "/a/x?y", tls=False).status == 301
    assert paths(own) == ["/", "/ab", "/a/x"]
    assert paths(elsewhere) == ["/a/far/x", "/c/first/x/y"]
    assert (paths(a), paths(b), paths(c)) == (["/a", "/a/", "/a/x?y=1", "/a/bb"], ["/a/b/z"], ["/c/y"])


@pytest.mark.parametrize("strip", [True, False])
def test_a_prefix_is_stripped_if_wanted_and_the_app_told_what_is_declared(serve: Serve, strip: bool) -> None:
    with Upstream() as app:
        sites = [NOBODYS, at("app", app.port, strip=strip, request_headers={"X-Script-Name": '/app "$x"'})]
        with serve(*sites) as proxy:
            for path in ("/app", "/app/", "/app/a%20b?c=d"):
                assert proxy.get("d.test", path, X_Script_Name="/lie", X_Forwarded_Prefix="/lie").status == 200
            # What is nobody's is not there, but it says so by the domain's own certificate and headers.
            nothing = proxy.get("d.test", "/")
    assert (nothing.status, nothing.header("Strict-Transport-Security")) == (404, "max-age=31536000")
    assert paths(app) == (["/", "/", "/a%20b?c=d"] if strip else ["/app", "/app/", "/app/a%20b?c=d"])
    for _path, headers in app.requests:
        assert headers["x-script-name"] == '/app "$x"'
        assert headers.get("x-forwarded-prefix", "") == ("/app" if strip else "")
        assert (headers["host"], headers["x-forwarded-host"]) == ("d.test", "d.test")


def test_an_app_may_have_a_path_and_a_domain_of_its_own(serve: Serve) -> None:
    with Upstream() as app, Upstream() as own:
        sites = [at("own", own.port, "d.test"), at("ocr", app.port, "d.test/ocr", "ocr.test", strip=True)]
        with serve(*sites) as proxy:
            for host, path in (("d.test", "/ocr/x"), ("ocr.test", "/ocr/x"), ("d.test", "/x")):
                assert proxy.get(host, path).status == 200
    assert (paths(app), paths(own)) == (["/x", "/ocr/x"], ["/x"])


STRICT: dict[str, Any] = {
    "rate_limit": {"per_minute": 6, "burst": 1},
    "basic_auth": {"users": {"ops": PASSWORD}},
    "cors": {"origins": ["https://o.test"]},
    "headers": {"Content-Security-Policy": "default-src 'none'", "X-Frame-Options": "DENY"},
    "proxy": {"max_body_size": "1k"},
    "request_headers": {"X-Strict": "yes"},
}


def preflight(proxy: Proxy, path: str) -> Answer:
    return proxy.get("d.test", path, method="OPTIONS", Origin="https://o.test", Access_Control_Request_Method="PUT")


@pytest.mark.parametrize("strict_at", ["d.test", "d.test/strict"])
def test_what_one_app_declares_holds_for_its_paths_and_not_for_its_neighbours(serve: Serve, strict_at: str) -> None:
    with Upstream() as strict, Upstream() as easy:
        easy_at = "d.test/easy" if strict_at == "d.test" else "d.test"
        sites = [at("strict", strict.port, strict_at, **STRICT), at("easy", easy.port, easy_at)]
        with serve(*sites) as proxy:
            inside, outside = (where.removeprefix("d.test") + "/x" for where in (strict_at, easy_at))
            assert proxy.get("d.test", inside).status == 401
            well = proxy.get("d.test", inside, Authorization=login(), Origin="https://o.test")
            first = preflight(proxy, inside)
            statuses = [proxy.get("d.test", inside, Authorization=login()).status for _ in range(4)]
            beside = [proxy.get("d.test", outside, method="POST", body=b"x" * 5000) for _ in range(8)]
            asked = preflight(proxy, outside)
    assert well.status == 200 and well.header("Access-Control-Allow-Origin") == "https://o.test"
    assert well.header("X-Frame-Options") == "DENY" and first.status == 200
    assert statuses[-1] == 429
    assert {answer.status for answer in beside} == {200}
    assert beside[0].header("X-Frame-Options") == "SAMEORIGIN"
    assert beside[0].header("Content-Security-Policy") is None
    assert asked.header("Access-Control-Allow-Origin") is None
    assert [headers.get("x-strict") for _path, headers in (strict.requests[0], easy.requests[0])] == ["yes", None]


@pytest.mark.parametrize("strict_at", ["d.test", "d.test/strict"])
def test_a_large_body_is_refused_where_it_is_declared(serve: Serve, strict_at: str) -> None:
    with Upstream() as strict, Upstream() as easy:
        easy_at = "d.test/easy" if strict_at == "d.test" else "d.test"
        sites = [
            at("strict", strict.port, strict_at, proxy={"max_body_size": "1k"}),
            at("easy", easy.port, easy_at, proxy={"max_body_size": "100k"}),
        ]
        with serve(*sites) as proxy:
            inside, outside = (where.removeprefix("d.test") + "/x" for where in (strict_at, easy_at))
            for size, statuses in ((1000, (200, 200)), (5000, (413, 200)), (103000, (413, 413))):
                body = b"x" * size
                found = tuple(proxy.get("d.test", path, method="POST", body=body).status for path in (inside, outside))
                assert found == statuses


@pytest.mark.parametrize(("strip", "path"), [(True, "/{}"), (False, "/{}"), (False, "/app/{}")])
def test_paths_of_an_app_are_as_the_app_knows_them(serve: Serve, strip: bool, path: str) -> None:
    """Its WebSocket, its health, where a password is asked for and what is limited, with a prefix or without."""
    with Upstream() as app, Upstream() as own:
        more: dict[str, Any] = {
            "strip": strip,
            "proxy": {"websockets": [path.format("ws")]},
            "health": path.format("admin/health"),
            "basic_auth": {"users": {"ops": PASSWORD}, "paths": [path.format("admin")]},
            "rate_limits": {path.format("token"): {"per_minute": 6}},
        }
        with serve(at("own", own.port, "d.test"), at("app", app.port, **more)) as proxy:
            for part, status in (
                ("ws/x", 200),
                ("admin", 401),
                ("admin/x", 401),
                ("%61dmin", 401),
                ("x/../admin", 401),
                ("admin/health", 200),
                ("administration", 200),
                ("token/x", 200),
                ("token", 429),
                ("tokens", 200),
                ("", 200),
            ):
                answer = proxy.get("d.test", f"/app/{part}", Upgrade="websocket", Connection="upgrade")
                assert answer.status == status, part
            for other in ("/admin", "/token", "/token"):
                assert proxy.get("d.test", other).status == 200
    assert app.requests[0] == ("/ws/x" if strip else "/app/ws/x", app.requests[0][1])
    assert app.requests[0][1]["upgrade"] == "websocket"


@pytest.mark.parametrize("closed", ["own", "app"])
def test_one_app_is_closed_and_its_neighbour_is_not(serve: Serve, closed: str) -> None:
    with Upstream() as own, Upstream() as app:
        sites: list[dict[str, Any]] = [
            at("own", own.port, "d.test", health="/health"),
            at("app", app.port, "d.test/app", health="/health", strip=True),
        ]
        for site in sites:
            site.update({"maintenance": {"message": "Back soon."}} if site["name"] == closed else {})
        with serve(*sites) as proxy:
            for prefix, name in (("", "own"), ("/app", "app")):
                answer = proxy.get("d.test", prefix + "/x")
                assert answer.status == (503 if name == closed else 200)
                assert (b"Back soon." in answer.body, answer.header("Retry-After")) == (
                    (True, "120") if name == closed else (False, None)
                )
                assert proxy.get("d.test", prefix + "/health").status == 200


@pytest.mark.parametrize("listed", ["d.test", "d.test/app"])
def test_who_may_come_is_each_apps_own(serve: Serve, listed: str) -> None:
    with Upstream() as one, Upstream() as two:
        other = "d.test/app" if listed == "d.test" else "d.test"
        sites = [at("one", one.port, listed, allow=["198.51.100.0/24"], health="/health"), at("two", two.port, other)]
        with serve(*sites) as proxy:
            inside, outside = listed.removeprefix("d.test"), other.removeprefix("d.test")
            assert proxy.get("d.test", inside + "/x").status == 403
            assert proxy.get("d.test", inside + "/health").status == 200
            assert proxy.get("d.test", outside + "/x").status == 200


def test_an_app_that_is_down_takes_no_other_on_its_domain_with_it(serve: Serve) -> None:
    with Upstream() as own, Upstream() as well:
        sites = [
            at("own", own.port, "d.test", basic_auth={"users": {"ops": PASSWORD}}),
            at("down", free_port(), headers={"X-Frame-Options": "DENY"}),
            at("well", well.port),
        ]
        with serve(*sites) as proxy:
            answer = proxy.get("d.test", "/down/x", method="POST")
            assert proxy.get("d.test", "/well/x").status == 200
            assert proxy.get("d.test", "/", Authorization=login()).status == 200
    assert (answer.status, answer.header("X-Frame-Options")) == (502, "DENY")
    assert answer.header("Strict-Transport-Security") == "max-age=31536000"
    assert b"does not answer at the moment" in answer.body


@pytest.mark.parametrize("patient_at", ["d.test", "d.test/patient"])
def test_an_app_may_take_longer_than_its_neighbour(serve: Serve, patient_at: str) -> None:
    hasty_at = "d.test/hasty" if patient_at == "d.test" else "d.test"
    with Upstream(delay=1.4) as slow:
        sites = [
            at("patient", slow.port, patient_at, proxy={"timeout": 30}),
            at("hasty", slow.port, hasty_at, proxy={"timeout": 1}),
        ]
        with serve(*sites) as proxy:
            statuses = [
                proxy.get("d.test", place.removeprefix("d.test") + "/x").status for place in (patient_at, hasty_at)
            ]
    assert statuses == [200, 504]


def test_a_route_at_a_path_asks_the_other_host_like_a_location(serve: Serve) -> None:
    with Upstream() as other:
        url = f"http://127.0.0.1:{other.port}"
        route = {"domains": ["d.test/odoo"], "route": {"upstream": url}, "request_headers": {"X-A": "b"}}
        based = {"name": "based", "domains": ["d.test/based"], "route": {"upstream": f"{url}/base"}}
        with serve(NOBODYS, {**route, "name": "odoo", "strip": True}, based) as proxy:
            for path in ("/odoo", "/odoo/web?x=1", "/based/y"):
                assert proxy.get("d.test", path).status == 200
            proxy.get("d.test", "/odoo/bus", Upgrade="websocket", Connection="upgrade")
    assert paths(other) == ["/", "/web?x=1", "/base/y", "/bus"]
    assert other.requests[0][1]["x-a"] == "b" and other.requests[0][1]["x-forwarded-prefix"] == "/odoo"
    assert other.requests[0][1]["host"] == f"127.0.0.1:{other.port}"
    assert other.requests[3][1]["upgrade"] == "websocket"


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("spa", [True, False])
def test_files_are_at_a_path_too(serve: Serve, tmp_path: Path, strip: bool, spa: bool) -> None:
    root = tmp_path / "public"
    folder = root if strip else root / "docs"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", "404.html", "page.html", ".env", "assets/index-DiwrgTda.js"):
        (folder / name).write_text(name)
    docs = {"name": "docs", "domains": ["d.test/docs", "docs.test"], "strip": strip}
    docs["static"] = {"root": str(root), "spa": spa}
    with Upstream() as own, serve(at("own", own.port, "d.test"), docs) as proxy:
        slash = proxy.get("d.test", "/docs?x=1")
        assert (slash.status, slash.header("Location")) == (301, "https://d.test/docs/?x=1")
        front = proxy.get("d.test", "/docs/")
        assert (front.body, front.header("Cache-Control")) == (b"index.html", "no-cache")
        script = proxy.get("d.test", "/docs/assets/index-DiwrgTda.js")
        assert script.header("Cache-Control") == "public, max-age=31536000, immutable"
        missing, unknown = (proxy.get("d.test", f"/docs/{name}") for name in ("no.js", "no/page"))
        assert missing.status == 404
        assert (unknown.status, unknown.body) == ((200, b"index.html") if spa else (404, b"404.html"))
        assert proxy.get("d.test", "/docs/page").status == 200
        for path in ("/docs/.env", "/docs/%2eenv", "/docs%2f.env", "/docs/x/..%2f.env"):
            assert proxy.get("d.test", path).body != b".env"
        assert proxy.get("d.test", "/x").body == b"ok"
        assert proxy.get("docs.test", "/" if strip else "/docs/").body == b"index.html"


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ([at("a", 1)], "site 'a' is at d.test/a, but no site has d.test itself"),
        ([NOBODYS, at("a", 1), {"name": "b", "domains": ["b.test"]}], "must have one of static, proxy and route"),
        ([NOBODYS, at("a", 1, "d.test/a b")], "the path of d.test '/a b' must be a path below /"),
        ([NOBODYS, at("a", 1, redirect_domains=["x.test"])], "no domain for them to lead to"),
        ([NOBODYS, at("a", 1, request_headers={"Host": "x"})], "the proxy itself sets the request's Host"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_by_both(sites: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        nginx_filters.nginx_files(sites)
    with pytest.raises(AnsibleFilterError, match=message):
        traefik_filters.traefik_files(sites, settings())
