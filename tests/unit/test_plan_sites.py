"""What the proxy is told of the sites, and which certificates they take."""

from __future__ import annotations

from typing import Any

from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan

from tests.unit.plan_cases import API, APPS, ONE, PORT, WEB, site


def test_a_python_site_has_what_nginx_needs() -> None:
    assert site(APPS, ONE, "web1", "malar-api") == {
        "name": "malar-api",
        "domains": ["api.malar.in"],
        "redirect_domains": [],
        "certificate": "/etc/shipshape/tls/malar-api/fullchain.pem",
        "certificate_key": "/etc/shipshape/tls/malar-api/privkey.pem",
        "self_signed": False,
        "hsts": True,
        "locations": [],
        "health": "/health",
        "proxy": {
            "upstreams": [f"127.0.0.1:{PORT}"],
            "green": {"upstreams": [f"127.0.0.1:{PORT + 1}"], "flag": "/var/lib/shipshape/live/malar-api.green"},
            "websockets": ["/ws"],
            "timeout": 60,
            "max_body_size": "10m",
        },
    }


def test_a_static_site_is_served_from_its_release() -> None:
    planned = site(APPS, ONE, "web1", "malar-web")
    assert planned["static"] == {"root": "/srv/malar-web/current/public", "spa": True}
    assert planned["redirect_domains"] == ["www.malar.in"]
    assert planned["locations"] == [{"path": "/api", "upstream": "https://api.malar.in"}]
    assert "proxy" not in planned
    # Uploads may go through one of its locations.
    assert site({"w": {**WEB, "max_body_size": "50m"}}, ONE, "web1", "w")["static"]["max_body_size"] == "50m"


def test_an_app_at_a_path_has_no_certificate_but_its_domain_has_one() -> None:
    """Whether the domain is another app's or nobody's; and a deploy asks it where a visitor would."""
    paths = ["malar.in/api", "Other.in/a/b", "other.in/c"]
    apps = {"malar-web": WEB, "malar-api": {**API, "domains": paths, "strip": True, "priority": 20}}
    planned = plan(apps, ONE, "web1")
    at = site(apps, ONE, "web1", "malar-api")
    assert "certificate" not in at and (at["domains"], at["strip"], at["priority"]) == (paths, True, 20)
    assert [row["name"] for row in planned["nginx_sites"]] == ["malar-web", "malar-api", "other.in"]
    assert planned["nginx_sites"][2] == {
        "name": "other.in",
        "domains": ["other.in"],
        "redirect_domains": [],
        "certificate": "/etc/shipshape/tls/other.in/fullchain.pem",
        "certificate_key": "/etc/shipshape/tls/other.in/privkey.pem",
        "self_signed": False,
        "hsts": True,
        "empty": True,
    }
    assert planned["certbot_certificates"] == [
        {"name": "malar-web", "domains": ["malar.in", "www.malar.in"]},
        {"name": "other.in", "domains": ["other.in"]},
    ]


def test_a_rate_limit_leaves_room_for_a_page_and_its_assets() -> None:
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 1000}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"] == {"per_minute": 1000, "burst": 100}
    # But where few are allowed, no more than those: five a minute are not twenty at once.
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 5}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"] == {"per_minute": 5, "burst": 4}
    limited = {"malar-api": {**API, "rate_limit": {"per_minute": 5, "burst": 2}}}
    assert site(limited, ONE, "web1", "malar-api")["rate_limit"]["burst"] == 2


def test_limits_stand_in_the_numbers_of_the_plans() -> None:
    app = {
        **API,
        "rate_limit": {"per_minute": 1000, "per_hour": 10000},
        "rate_limits": {"/token": {"per_minute": 5}, "/functions": {"per_minute": 200, "burst": 0}},
    }
    planned = site({"malar-api": app}, ONE, "web1", "malar-api")
    assert planned["rate_limit"] == {"per_minute": 1000, "per_hour": 10000, "burst": 100}
    assert planned["rate_limits"] == {
        "/token": {"per_minute": 5, "burst": 4},
        "/functions": {"per_minute": 200, "burst": 0},
    }


def test_who_may_come_and_what_a_site_says_is_handed_on() -> None:
    users = {"ops": "correct horse battery staple"}
    app = {
        **API,
        "headers": {"Content-Security-Policy": "default-src 'self'", "X-Robots-Tag": ""},
        "basic_auth": {"users": users, "paths": "/admin"},
        "allow": "198.51.100.0/24",
        "maintenance": {"message": "Back at 18:00."},
    }
    planned = site({"malar-api": app}, ONE, "web1", "malar-api")
    assert planned["headers"] == {"Content-Security-Policy": "default-src 'self'", "X-Robots-Tag": ""}
    assert planned["basic_auth"] == {"users": users, "paths": ["/admin"]}
    assert (planned["allow"], planned["maintenance"]) == (["198.51.100.0/24"], {"message": "Back at 18:00."})
    web = {**WEB, "maintenance": True, "basic_auth": {"users": users}}
    planned = site({"malar-web": web}, ONE, "web1", "malar-web")
    assert (planned["maintenance"], planned["basic_auth"]["paths"]) == ({"message": ""}, [])
    assert "maintenance" not in site({"malar-web": {**WEB, "maintenance": False}}, ONE, "web1", "malar-web")
    assert "health" not in planned
    said = {"malar-api": {**API, "health": {"path": "/health", "body": "ok"}}}
    assert site(said, ONE, "web1", "malar-api")["health"] == "/health"


def test_certificates_cover_redirected_domains_and_skip_addresses() -> None:
    apps = {**APPS, "bare": {**WEB, "domains": ["164.92.130.7"], "redirect_domains": [], "locations": {}}}
    planned = plan(apps, ONE, "web1")
    assert planned["certbot_certificates"] == [
        {"name": "malar-api", "domains": ["api.malar.in"]},
        {"name": "malar-web", "domains": ["malar.in", "www.malar.in"]},
    ]
    bare = site(apps, ONE, "web1", "bare")
    assert (bare["self_signed"], bare["hsts"]) == (True, False)


def test_the_sites_are_planned_without_reading_the_environment() -> None:
    """Ansible templates what is read: whoever asks for sites must not need the vault."""

    class Locked(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            assert key != "env", "the environment was read"
            return super().get(key, default)

        __getitem__ = get

    assert plan({"malar-api": Locked(API)}, ONE, "web1")["nginx_sites"]
