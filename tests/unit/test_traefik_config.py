"""The traefik role's configuration, made by its filters and run by a real Traefik."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter import nginx as nginx_filters
from ansible_collections.shipshape.droplet.plugins.filter import traefik as filters
from ansible_collections.shipshape.droplet.plugins.module_utils import app_proxy
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

from tests.lab import http3
from tests.unit.inventory_cases import insightpulse
from tests.unit.nginx_lab import Upstream, free_port, make_certificate, nginx_home, nginx_program, render_all
from tests.unit.traefik_lab import ROLE, Traefik, render_files, settings


def proxy_site(*ports: int, **more: Any) -> dict[str, Any]:
    upstreams = [f"127.0.0.1:{port}" for port in ports]
    return {"name": "api", "domains": ["api.test"], "proxy": {"upstreams": upstreams, "websockets": ["/ws"]}, **more}


EVERYTHING = [
    proxy_site(
        1,
        2,
        redirect_domains=["www.api.test"],
        rate_limit={"per_minute": 60, "burst": 5},
        headers={"Content-Security-Policy": "a 'b' \"c$d\""},
        locations=[{"path": "/x", "upstream": "https://y.test/z"}, {"path": "/y", "upstream": "http://z.test:81"}],
    ),
    {
        "name": "every.where",
        "domains": ["ws.test"],
        "hsts": False,
        "proxy": {"upstreams": ["[::1]:2"], "websockets": ["/"]},
    },
    {
        "name": "coloured",
        "domains": ["c.test"],
        "proxy": {
            "upstreams": ["127.0.0.1:1"],
            "green": {"upstreams": ["127.0.0.1:2"], "flag": "/var/lib/shipshape/live/coloured.green"},
        },
    },
    {"name": "web", "domains": ["web.test"], "static": {"root": "/srv/web", "spa": True, "max_body_size": "1m"}},
    {"name": "bare", "domains": ["203.0.113.7"], "self_signed": True, "proxy": {"upstreams": ["127.0.0.1:3"]}},
    {"name": "v6", "domains": ["2001:db8::1"], "self_signed": True, "proxy": {"upstreams": ["127.0.0.1:3"]}},
]


@pytest.mark.parametrize("policy", ["intermediate", "modern"])
@pytest.mark.parametrize("sites", ["none", "all kinds"])
def test_traefik_accepts_the_configuration_without_an_error(tmp_path: Path, policy: str, sites: str) -> None:
    more: dict[str, Any] = {
        "trusted_proxies": ["10.0.0.0/8"],
        "tls_policy": policy,
        "hsts": {"max_age": 5, "preload": True},
    }
    traefik = Traefik(tmp_path, EVERYTHING if sites == "all kinds" else [], **more)
    # On the droplet its own program picks the live one.
    for path in traefik.dynamic.glob("live-*.green.yml"):
        path.unlink()
    with traefik.running():
        assert traefik.errors() == []


def test_what_traefik_cannot_use_is_found_by_this_very_test(tmp_path: Path) -> None:
    traefik = Traefik(tmp_path, [proxy_site(1)])
    with traefik.running():
        rule = {"rule": "Hest(`x`)", "service": "api", "entryPoints": ["websecure"], "tls": {}}
        traefik.write("site-broken.yml", {"http": {"routers": {"broken": rule}}})
        deadline = time.monotonic() + 5
        while not traefik.errors() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "unsupported function: Hest" in traefik.errors()[0]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    answer = {"Server": "app/1", "Strict-Transport-Security": "max-age=1", "X-Frame-Options": "DENY"}
    with Upstream(answer) as upstream:
        yield upstream


def test_a_body_has_its_limit_whoever_sends_it_and_who_sends_none_is_not_held_up(
    tmp_path: Path, upstream: Upstream
) -> None:
    site = proxy_site(upstream.port)
    site["proxy"]["max_body_size"] = "1k"
    with Traefik(tmp_path, [site]).running() as traefik:
        statuses = [traefik.get("api.test", "/", method=method, body=b"x" * 2000).status for method in ("POST", "GET")]
        assert [*statuses, traefik.get("api.test", "/").status] == [413, 413, 200]
        assert "api:body@file" not in traefik.ask("routers/api:app-read@file")["middlewares"]
        assert "api:body@file" in traefik.ask("routers/api:app@file")["middlewares"]


def test_two_sites_of_which_one_is_called_like_a_part_of_the_other(tmp_path: Path) -> None:
    with Upstream() as first, Upstream() as second:
        sites = [proxy_site(first.port), {**proxy_site(second.port), "name": "api-app", "domains": ["other.test"]}]
        with Traefik(tmp_path, sites).running() as traefik:
            for domain in ("api.test", "other.test"):
                assert traefik.get(domain, "/", method="POST", body=b"x").status == 200
            assert "already configured" not in traefik.log.read_text()
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_the_application_hears_who_asked_and_cannot_be_lied_to(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port)]).running() as traefik:
        names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Proxy")
        lies = {"Forwarded": "for=6.6.6.6", **dict.fromkeys(names, "6.6.6.6")}
        traefik.get("api.test", "/x?y=1", raw=lies)
    path, headers = upstream.requests[-1]
    assert path == "/x?y=1"
    assert "6.6.6.6" not in json.dumps(headers)
    assert headers["host"] == "api.test"
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == "127.0.0.1"
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"]) == ("https", "api.test")


def test_a_header_that_an_application_would_take_for_another_is_removed(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port)]).running() as traefik:
        # WSGI and the like see no difference between hyphen and underscore.
        traefik.get("api.test", "/", raw={"X_Forwarded_For": "6.6.6.6"})
    assert "6.6.6.6" not in json.dumps(upstream.requests)


def test_a_trusted_proxy_in_front_is_believed(tmp_path: Path, upstream: Upstream) -> None:
    site = proxy_site(upstream.port, rate_limit={"per_minute": 6, "burst": 0})
    with Traefik(tmp_path, [site], trusted_proxies=["127.0.0.0/8"]).running() as traefik:
        asked = [traefik.get("api.test", "/", X_Forwarded_For=f"6.6.6.{n // 2}").status for n in range(4)]
    assert upstream.requests[0][1]["x-forwarded-for"] == "6.6.6.0, 127.0.0.1"
    # Each client has a limit of its own.
    assert asked == [200, 429, 200, 429]


def test_another_site_of_the_droplet_is_believed(tmp_path: Path, upstream: Upstream) -> None:
    site = proxy_site(upstream.port, rate_limit={"per_minute": 6, "burst": 0})
    with Traefik(tmp_path, [site], own_addresses=["127.0.0.1"]).running() as traefik:
        asked = [traefik.get("api.test", "/", X_Forwarded_For=f"6.6.6.{n}").status for n in range(2)]
    assert upstream.requests[0][1]["x-forwarded-for"] == "6.6.6.0, 127.0.0.1"
    # A limit counts who has connected: what comes directly has no other address.
    assert asked == [200, 429]


def test_headers_are_those_declared_whatever_the_application_says(tmp_path: Path, upstream: Upstream) -> None:
    site = proxy_site(upstream.port, headers={"referrer-policy": "no-referrer", "Permissions-Policy": ""})
    hsts = {"max_age": 31536000, "include_subdomains": True, "preload": True}
    with Traefik(tmp_path, [site], hsts=hsts).running() as traefik:
        answer = traefik.get("api.test", "/")
    assert answer.header("Strict-Transport-Security") == "max-age=31536000; includeSubDomains; preload"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("X-Frame-Options") == "SAMEORIGIN"
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("Permissions-Policy") is None
    assert answer.header("Server") is None


def test_a_site_with_a_self_signed_certificate_sends_no_hsts(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port, self_signed=True)]).running() as traefik:
        assert traefik.get("api.test", "/").header("Strict-Transport-Security") is None


def test_the_rate_limit_is_that_of_nginx(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port, rate_limit={"per_minute": 6, "burst": 2})]).running() as traefik:
        # One, and two beyond; the bucket of a refused client is not emptied further.
        assert [traefik.get("api.test", "/").status for _ in range(5)] == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/.env", 404), ("/%2eenv", 404), ("/%2Eenv", 404), ("/a/.git/config", 404), ("/ws/.env", 404),
        ("/else/.env", 404), ("/.well-known/security.txt", 200), ("/.well-known/.env", 404),
        ("/.well-known/../.env", 404), ("/a.b", 200),
    ],
)  # fmt: skip
def test_files_that_begin_with_a_dot_are_nobodys_business(
    shared: tuple[Traefik, Upstream], path: str, status: int
) -> None:
    assert shared[0].get("api.test", path).status == status


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Traefik, Upstream]]:
    """One for the tests that only ask."""
    with Upstream() as upstream:
        sites = [
            proxy_site(
                upstream.port,
                redirect_domains=["www.api.test"],
                locations=[
                    {"path": "/else", "upstream": f"http://127.0.0.1:{upstream.port}"},
                    {"path": "/moved", "upstream": f"http://127.0.0.1:{upstream.port}/v1/"},
                ],
            )
        ]
        with Traefik(tmp_path_factory.mktemp("traefik"), sites).running() as traefik:
            yield traefik, upstream


def test_a_path_goes_to_another_server_under_its_own_name(shared: tuple[Traefik, Upstream]) -> None:
    traefik, upstream = shared
    for asked, seen in (
        ("/else", "/else"),
        ("/else/a?b=c", "/else/a?b=c"),
        ("/moved/a?b=c", "/v1/a?b=c"),
        ("/moved", "/v1/"),
    ):
        traefik.get("api.test", asked, X_Forwarded_For="6.6.6.6")
        path, headers = upstream.requests[-1]
        assert path == seen
        assert headers["host"] == f"127.0.0.1:{upstream.port}"
        assert (headers["x-forwarded-host"], headers["x-forwarded-for"]) == ("api.test", "127.0.0.1")
    # Not what only begins alike.
    traefik.get("api.test", "/elsewhere")
    assert upstream.requests[-1][1]["host"] == "api.test"


def test_http_leads_to_https_and_redirect_domains_to_the_first(shared: tuple[Traefik, Upstream]) -> None:
    traefik, _upstream = shared
    answer = traefik.get("api.test", "/a?b", tls=False)
    assert (answer.status, answer.header("Location")) == (301, f"https://api.test:{traefik.https}/a?b")
    answer = traefik.get("www.api.test", "/a?b")
    assert (answer.status, answer.header("Location")) == (301, "https://api.test/a?b")


def test_an_unknown_name_gets_no_handshake(shared: tuple[Traefik, Upstream]) -> None:
    with pytest.raises(OSError):
        shared[0].get("unknown.test", "/")


@pytest.mark.parametrize("name", ["www.other.test", "wrong.test"])
def test_another_https_server_is_asked_by_its_name_and_must_prove_it(tmp_path: Path, name: str) -> None:
    certificate = tmp_path / "other"
    certificate.mkdir()
    make_certificate(certificate, "localhost" if name == "www.other.test" else name)
    with Upstream(tls=certificate) as upstream:
        site = proxy_site(1, locations=[{"path": "/x", "upstream": f"https://localhost:{upstream.port}"}])
        with Traefik(tmp_path, [site], trusted_root=certificate / "cert.pem").running() as traefik:
            status = traefik.get("api.test", "/x").status
        if name == "wrong.test":
            assert (status, upstream.requests) == (500, [])
        else:
            assert (status, upstream.names) == (200, ["localhost"])


def test_modern_is_tls_1_3_only(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port)], tls_policy="modern").running() as traefik:
        context = ssl._create_unverified_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        connection = http.client.HTTPSConnection("127.0.0.1", traefik.https, context=context)
        with pytest.raises(ssl.SSLError, match="protocol version"):
            connection.request("GET", "/")
        assert traefik.get("api.test", "/").status == 200


def test_texts_are_compressed(tmp_path: Path) -> None:
    body = {"Content-Type": "application/json"}
    with Upstream(body) as upstream, Traefik(tmp_path, [proxy_site(upstream.port)]).running() as traefik:
        # The small answer of the upstream stays as it is.
        assert traefik.get("api.test", "/", Accept_Encoding="br, gzip").header("Content-Encoding") is None
        options = traefik.ask("middlewares/shipshape-compress@file")["compress"]
    assert options["encodings"] == ["br", "gzip"]


def test_replacing_the_addresses_of_an_app_loses_no_request(tmp_path: Path) -> None:
    with Upstream({"X-Colour": "blue"}) as blue, Upstream({"X-Colour": "green"}) as green:
        with Traefik(tmp_path, [proxy_site(blue.port)]).running() as traefik:
            statuses: list[tuple[int, str | None]] = []
            stop = threading.Event()

            def ask() -> None:
                while not stop.is_set():
                    answer = traefik.get("api.test", "/")
                    statuses.append((answer.status, answer.header("X-Colour")))

            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            for port in (green.port, blue.port, green.port):
                time.sleep(0.4)
                traefik.write("live-api.yml", filters.traefik_service("api", [f"127.0.0.1:{port}"]))
            time.sleep(0.4)
            last = traefik.get("api.test", "/").header("X-Colour")
            stop.set()
            for client in clients:
                client.join()
    assert {status for status, _colour in statuses} == {200}
    assert {colour for _status, colour in statuses} == {"blue", "green"}
    assert last == "green"


def test_as_many_connections_to_an_app_are_kept_as_where_traefik_has_its_own_transport() -> None:
    """Otherwise two: of 7441 requests over 16 connections, 5397 opened one to the app; with 200 it is 17 in all."""
    site = filters.traefik_site(proxy_site(1), settings())
    assert site["http"]["serversTransports"]["api"]["maxIdleConnsPerHost"] == 200


def test_the_static_file_shows_nothing_and_reports_nothing() -> None:
    static = filters.traefik_static(settings())
    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert "api" not in static and "certificatesResolvers" not in static
    assert static["entryPoints"]["metrics"]["address"] == "127.0.0.1:8082"
    assert static["accessLog"]["fields"]["headers"]["defaultMode"] == "drop"


def test_own_certificates_are_asked_of_the_authority_for_sites_that_name_none() -> None:
    given = settings(acme_email="ops@malar.in", acme_directory="https://ca.test/d", acme_ca_bundle="/root.crt")
    acme = filters.traefik_static(given)["certificatesResolvers"]["acme"]["acme"]
    assert acme == {
        "email": "ops@malar.in",
        "storage": "/var/lib/traefik/acme-ca.test.json",
        "keyType": "EC256",
        "httpChallenge": {"entryPoint": "web"},
        "caServer": "https://ca.test/d",
        "caCertificates": ["/root.crt"],
    }
    sites = [proxy_site(1), {**proxy_site(1), "name": "own", "certificate": "/c.pem", "certificate_key": "/k.pem"}]
    assert [row["name"] for row in filters.traefik_certificates(sites, given)] == ["own"]
    routers = [filters.traefik_site(site, given)["http"]["routers"] for site in sites]
    assert routers[0]["api"]["tls"] == {"certResolver": "acme"}
    assert routers[1]["own"]["tls"] == {}


def test_each_authority_has_its_own_store_so_that_no_certificate_for_tests_stays_after_the_switch() -> None:
    directories = ("", filters.LETS_ENCRYPT, "https://acme-staging-v02.api.letsencrypt.org/directory")
    stores = []
    for directory in directories:
        static = filters.traefik_static(settings(acme_email="ops@malar.in", acme_directory=directory))
        stores.append(static["certificatesResolvers"]["acme"]["acme"]["storage"])
    usual = "/var/lib/traefik/acme.json"
    assert stores == [usual, usual, "/var/lib/traefik/acme-acme-staging-v02.api.letsencrypt.org.json"]


def test_a_site_that_would_be_refused_is_not_asked_for_and_none_is_taken_from_the_disk() -> None:
    given = settings(acme_email="ops@malar.in", obstacles={"api": "DNS …"})
    routers = filters.traefik_site({**proxy_site(1), "redirect_domains": ["www.malar.in"]}, given)["http"]["routers"]
    assert routers["api"]["tls"] == routers["api:redirect"]["tls"] == {}
    assert filters.traefik_certificates([proxy_site(1)], given) == []
    assert [row["name"] for row in filters.traefik_own([proxy_site(1)], given)] == ["api"]


def test_http3_is_spoken_where_it_is_wanted() -> None:
    assert filters.traefik_static(settings(http3=True))["entryPoints"]["websecure"]["http3"] == {}
    assert "http3" not in filters.traefik_static(settings())["entryPoints"]["websecure"]


def test_a_client_hears_of_http3_and_is_answered_by_it(tmp_path: Path, upstream: Upstream) -> None:
    with Traefik(tmp_path, [proxy_site(upstream.port)], http3=True).running() as traefik:
        assert "h3=" in str(traefik.get("api.test", "/").header("Alt-Svc"))
        assert http3.status("127.0.0.1", "api.test", port=traefik.https) == 200
        assert upstream.requests[-1][1]["x-forwarded-proto"] == "https"


def test_traefik_is_told_how_often_to_renew_where_its_default_is_too_seldom() -> None:
    def told(hours: int) -> object:
        given = settings(acme_email="ops@malar.in", acme_renewal_hours=hours)
        return filters.traefik_static(given)["certificatesResolvers"]["acme"]["acme"].get("certificatesDuration")

    assert [told(hours) for hours in (0, 24, 1)] == [None, 24, 1]


def test_names_are_tried_beside_traefiks_own_challenges() -> None:
    given = settings(acme_email="ops@malar.in", acme_webroot="/var/www/acme")
    rule = filters.traefik_base([proxy_site(1)], given)["http"]["routers"]["shipshape-challenges"]["rule"]
    assert rule == "PathPrefix(`/.well-known/acme-challenge/shipshape-`)"
    assert filters.traefik_static(given)["entryPoints"]["web"]["allowACMEByPass"] is True
    assert "allowACMEByPass" not in filters.traefik_static(settings())["entryPoints"]["web"]


def test_names_are_proven_by_dns_where_a_provider_is_named() -> None:
    given = settings(acme_email="ops@malar.in", acme_dns_provider="digitalocean")
    acme = filters.traefik_static(given)["certificatesResolvers"]["acme"]["acme"]
    assert acme["dnsChallenge"] == {"provider": "digitalocean"} and "httpChallenge" not in acme
    given["acme_dns_propagation_seconds"] = 30
    acme = filters.traefik_static(given)["certificatesResolvers"]["acme"]["acme"]
    assert acme["dnsChallenge"]["propagation"] == {"delayBeforeChecks": "30s"}


def test_a_wildcard_is_one_label_and_yields_to_the_name_of_another_site() -> None:
    given = settings(acme_email="ops@malar.in", acme_dns_provider="digitalocean")
    site = {**proxy_site(1), "domains": ["malar.in", "*.malar.in"], "redirect_domains": ["*.malar.org"]}
    routers = filters.traefik_site(site, given)["http"]["routers"]
    assert routers["api"]["rule"].startswith(r"(Host(`malar.in`) || HostRegexp(`^[^.]+\.malar\.in$`)) && ")
    assert routers["api"]["tls"]["domains"] == [{"main": "malar.in", "sans": ["*.malar.in"]}]
    assert routers["api:redirect"]["tls"]["domains"] == [{"main": "*.malar.org", "sans": []}]
    plain = filters.traefik_site(proxy_site(1), given)["http"]["routers"]["api"]
    assert plain["priority"] > routers["api"]["priority"] and "domains" not in plain["tls"]


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"name": "a@b"}, "'a@b' is no name for a site"),
        ({"proxy": None}, "must have one of static, proxy and route; found neither"),
        ({"domains": []}, "site 'api' has no domains"),
        ({"domains": ["a`b"]}, "holds a backtick"),
        ({"headers": {"a b": "c"}}, "'a b' is no name of an HTTP header"),
        ({"locations": [{"path": "/", "upstream": "https://x"}]}, "must be a path below /"),
        ({"locations": [{"path": "/x", "upstream": "x:1"}]}, "give an address such as https://api.example.com"),
        ({"proxy": {"upstreams": ["a:1"], "max_body_size": "much"}}, "'much' is no size"),
    ],
)
def test_a_site_that_cannot_be_served_is_refused(site: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message.replace("(", r"\(")):
        filters.traefik_site({**proxy_site(1), **site}, settings())


def test_the_role_has_the_same_sites_and_defaults_as_that_of_nginx() -> None:
    """`proxy` in the inventory is all that changes."""
    roles = {role: ROLE.parent / role for role in ("nginx", "traefik")}
    texts = {role: (path / "meta/argument_specs.yml").read_text() for role, path in roles.items()}
    specs = {role: yaml.safe_load(text)["argument_specs"]["main"]["options"] for role, text in texts.items()}
    sites = {role: spec[f"{role}_sites"]["options"] for role, spec in specs.items()}

    def shape(options: dict[str, Any]) -> dict[str, Any]:
        """Names, types and defaults at any depth; the words may differ."""
        return {
            name: (option["type"], option.get("default"), option.get("required"), shape(option.get("options", {})))
            for name, option in options.items()
        }

    assert shape(sites["nginx"]) == shape(sites["traefik"])
    for name in ("hsts", "headers", "tls_policy", "max_body_size", "trusted_proxies"):
        assert specs["nginx"][f"nginx_{name}"]["default"] == specs["traefik"][f"traefik_{name}"]["default"]
    assert filters.TLS == nginx_filters.TLS


def static_sites() -> list[dict[str, Any]]:
    return [
        {"name": "web", "domains": ["web.test"], "static": {"root": "/srv/web", "spa": True}},
        {"name": "plain", "domains": ["plain.test", "other.test"], "static": {"root": "/srv/plain"}},
    ]


def test_nginx_accepts_the_configuration_of_the_file_server(tmp_path: Path) -> None:
    text = render_files(static_sites(), traefik_acme_webroot="/var/www/acme")
    config = tmp_path / "files.conf"
    config.write_text(text.replace("/etc/nginx/", f"{nginx_home()}/etc/nginx/"))
    test = [nginx_program(), "-t", "-p", f"{tmp_path}/", "-c", str(config)]
    result = subprocess.run(test, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "server_name plain.test other.test;" in text and "[warn]" not in result.stderr.replace('the "user"', "")


def test_files_are_served_as_by_the_role_nginx() -> None:
    """Which files are cached for how long, and what a missing one is, must not depend on the proxy."""
    ours = render_files(static_sites())
    theirs = render_all({"nginx_sites": static_sites()})
    cached = [line.split() for line in theirs["/etc/nginx/nginx.conf"].splitlines() if line.strip().startswith('"~^/')]
    assert cached and all(line in [one.split() for one in ours.splitlines()] for line in cached)
    for site in ("web", "plain"):
        lines = theirs[f"/etc/nginx/shipshape/sites/{site}.conf"].splitlines()
        rules = [line.strip() for line in lines if "try_files" in line and "acme" not in line] + [
            line.strip() for line in lines if line.strip().startswith("location ~*")
        ]
        assert rules and all(rule in ours for rule in rules)


def test_a_static_site_goes_to_the_file_server_under_its_own_name(tmp_path: Path) -> None:
    with Upstream() as upstream:
        more = {"files_port": upstream.port, "acme_webroot": "/var/www/acme"}
        with Traefik(tmp_path, [static_sites()[0]], None, **more).running() as traefik:
            assert traefik.get("web.test", "/orders/1").status == 200
            assert traefik.get("web.test", "/.env").status == 404
            assert traefik.get("not-yet.test", "/.well-known/acme-challenge/x", tls=False).status == 200
    asked = [(path, headers["host"]) for path, headers in upstream.requests]
    assert asked == [("/orders/1", "web.test"), ("/.well-known/acme-challenge/x", f"127.0.0.1:{upstream.port}")]


def test_insightpulse_is_routed_by_path_to_other_hosts(tmp_path: Path) -> None:
    """System 1 as its inventory has it, with programs that remember what they heard in place of the other hosts."""
    apps = insightpulse()
    app = apps["insightpulse"]
    topology = Topology(("proxy1",), ("proxy1",), ())
    with Upstream() as web, Upstream() as odoo, Upstream() as superset:
        assert plan(apps, topology, "proxy1")["nginx_sites"][0]["route"]["upstream"] == app["url"]
        app["url"] = f"http://127.0.0.1:{web.port}"
        app["locations"]["/odoo"]["url"] = f"http://127.0.0.1:{odoo.port}"
        apps["superset"]["port"] = superset.port
        # The limit has a test of its own.
        app["rate_limit"]["burst"] = 1000
        sites = plan(apps, topology, "proxy1")["nginx_sites"]
        with Traefik(tmp_path, sites).running() as traefik:
            assert traefik.errors() == []
            for path in ("/", "/about?x=1", "/odoo/web/health", "/odoo", "/odoofoo", "/superset/api/v1"):
                assert traefik.get("insightpulseai.net", path, Origin="https://app.insightpulseai.net").status == 200
            allowed = traefik.get("insightpulseai.net", "/odoo", Origin="https://app.insightpulseai.net")
            stranger = traefik.get("insightpulseai.net", "/odoo", Origin="https://evil.test")
            priorities = {row["name"]: row["priority"] for row in traefik.ask("routers?per_page=1000")}
    assert [path for path, _headers in web.requests] == ["/", "/about?x=1", "/odoofoo"]
    assert [path for path, _headers in odoo.requests][:2] == ["/web/health", "/"]
    assert [path for path, _headers in superset.requests] == ["/superset/api/v1"]
    assert superset.requests[0][1]["x-script-name"] == "/superset"
    assert "x-script-name" not in odoo.requests[0][1] and odoo.requests[0][1]["host"] == f"127.0.0.1:{odoo.port}"
    assert odoo.requests[0][1]["x-forwarded-prefix"] == "/odoo"
    assert allowed.header("Access-Control-Allow-Origin") == "https://app.insightpulseai.net"
    assert stranger.header("Access-Control-Allow-Origin") is None
    assert allowed.header("Strict-Transport-Security") == "max-age=31536000"
    assert priorities["insightpulse:route@file"] == 1000 < priorities["insightpulse:location-0@file"] == 10005


def test_the_higher_priority_goes_before_the_longer_path(tmp_path: Path) -> None:
    with Upstream() as short, Upstream() as long:
        locations = [
            {"path": "/api", "upstream": f"http://127.0.0.1:{short.port}", "priority": 20},
            {"path": "/api/v2", "upstream": f"http://127.0.0.1:{long.port}"},
        ]
        with Traefik(tmp_path, [proxy_site(1, locations=locations)]).running() as traefik:
            traefik.get("api.test", "/api/v2/x")
    assert (len(short.requests), len(long.requests)) == (1, 0)


def test_a_route_to_another_host_proves_its_name(tmp_path: Path) -> None:
    certificate = tmp_path / "other"
    certificate.mkdir()
    make_certificate(certificate, "localhost")
    with Upstream(tls=certificate) as upstream:
        route = {"upstream": f"https://localhost:{upstream.port}"}
        site = {"name": "far", "domains": ["far.test"], "route": route}
        with Traefik(tmp_path, [site], trusted_root=certificate / "cert.pem").running() as traefik:
            assert traefik.get("far.test", "/x", X_Forwarded_For="6.6.6.6").status == 200
    assert upstream.names == ["localhost"]
    path, headers = upstream.requests[0]
    assert (path, headers["x-forwarded-host"], headers["x-forwarded-for"]) == ("/x", "far.test", "127.0.0.1")


def test_the_log_says_whose_answer_was_missing_when_a_page_of_ours_is_shown(tmp_path: Path) -> None:
    """A deploy watches the log for it: plugins/module_utils/app_proxy.py."""
    site = proxy_site(free_port())
    traefik = Traefik(tmp_path, [site])
    declared = tmp_path / "declared"
    declared.mkdir()
    for entry in filters.traefik_files([site], traefik.settings):
        if entry["path"].startswith(filters.DECLARED):
            (declared / Path(entry["path"]).name.replace("live-api.yml", "live-api.green.yml")).write_text(
                entry["content"]
            )
    proxy = app_proxy.Traefik()
    proxy.declared = str(declared)
    tally = app_proxy.Tally(proxy.upstreams("api", "green"), proxy.status)
    with traefik.file_server(), traefik.running():
        assert traefik.get("api.test", "/").status == 502
        log, deadline = tmp_path / "access.log", time.monotonic() + 5
        while not log.read_text().endswith("\n") and time.monotonic() < deadline:
            time.sleep(0.05)
    for line in log.read_text().splitlines():
        tally.take(line)
    assert (tally.answers, tally.errors) == (1, 1)
