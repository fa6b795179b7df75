"""What stands between a name and its certificate, said before the authority is asked and after it has refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import acme

HERE = "198.51.100.4"


@pytest.fixture(autouse=True)
def droplet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme, "own_addresses", lambda: [HERE])
    monkeypatch.setattr(acme.time, "sleep", lambda _seconds: None)


def dns(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setattr(acme, "resolve", lambda _name: list(addresses))


def web(monkeypatch: pytest.MonkeyPatch, webroot: Path, answers: dict[str, object]) -> None:
    """Each address answers with a status, raises, or (True) serves the webroot."""

    def fetch(address: str, _name: str, path: str) -> tuple[int, bytes]:
        answer = answers[address]
        if isinstance(answer, Exception):
            raise answer
        if answer is True:
            return 200, (webroot / path.lstrip("/")).read_bytes()
        assert isinstance(answer, int)
        return answer, b"something else"

    monkeypatch.setattr(acme, "fetch", fetch)


def test_a_name_that_leads_here_is_no_obstacle_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dns(monkeypatch, HERE)
    web(monkeypatch, tmp_path, {HERE: True})
    assert acme.obstacle("shop.example.com", str(tmp_path)) is None
    assert os.listdir(tmp_path / acme.CHALLENGES) == []


def test_a_name_behind_a_proxy_that_passes_the_challenge_on_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dns(monkeypatch, "203.0.113.7")
    web(monkeypatch, tmp_path, {"203.0.113.7": True})
    assert acme.obstacle("shop.example.com", str(tmp_path)) is None


def test_a_name_that_points_elsewhere_is_told_with_both_addresses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dns(monkeypatch, "203.0.113.7")
    web(monkeypatch, tmp_path, {"203.0.113.7": 404})
    problem = acme.obstacle("shop.example.com", str(tmp_path))
    assert problem and problem.startswith(
        "DNS for shop.example.com points to 203.0.113.7; this droplet is 198.51.100.4"
    )
    assert "answered with 404" in problem
    assert os.listdir(tmp_path / acme.CHALLENGES) == []


def test_the_right_status_with_the_wrong_text_is_another_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dns(monkeypatch, "203.0.113.7")
    web(monkeypatch, tmp_path, {"203.0.113.7": 200})
    assert "not with the file" in str(acme.obstacle("shop.example.com", str(tmp_path)))


def test_a_name_without_a_record_is_told_which_to_add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dns(monkeypatch)
    problem = acme.obstacle("shop.example.com", str(tmp_path))
    assert problem and "DNS has no address for shop.example.com; this droplet is 198.51.100.4" in problem
    assert "'shop.example.com A 198.51.100.4'" in problem


def test_a_closed_port_80_here_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dns(monkeypatch, HERE)
    web(monkeypatch, tmp_path, {HERE: ConnectionRefusedError(111, "Connection refused")})
    problem = acme.obstacle("shop.example.com", str(tmp_path))
    assert problem and "points to this droplet (198.51.100.4), but port 80 there does not answer" in problem
    assert "Is the web server up" in problem


def test_a_web_server_that_is_just_reloading_is_given_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dns(monkeypatch, HERE)
    answers = [(404, b"old"), (404, b"old")]

    def fetch(_address: str, _name: str, path: str) -> tuple[int, bytes]:
        return answers.pop() if answers else (200, (tmp_path / path.lstrip("/")).read_bytes())

    monkeypatch.setattr(acme, "fetch", fetch)
    assert acme.obstacle("shop.example.com", str(tmp_path)) is None
    answers += [(404, b"old")] * 100
    assert "answered with 404" in str(acme.obstacle("shop.example.com", str(tmp_path)))


def test_a_stale_ipv6_record_is_found_although_ipv4_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dns(monkeypatch, HERE, "2001:db8::7")
    web(monkeypatch, tmp_path, {HERE: True, "2001:db8::7": OSError(101, "Network is unreachable")})
    problem = acme.obstacle("shop.example.com", str(tmp_path))
    assert problem and "2001:db8::7" in problem and "AAAA" in problem


def test_a_wildcard_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    assert "wildcard" in str(acme.obstacle("*.example.com", str(tmp_path)))


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "An unexpected error occurred:\nToo many requests of a given type :: Error creating new order :: "
            "too many certificates (5) already issued for this exact set of domains in the last 168h0m0s, "
            "retry after 2026-11-21 06:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/",
            "weekly limit",
        ),
        (
            'Error creating new order :: too many failed authorizations (5) for "shop.example.com" in the last 1h0m0s, '
            "retry after 2026-11-20 12:00:00 UTC",
            "too many failed attempts",
        ),
        (
            "urn:ietf:params:acme:error:rateLimited :: too many new orders",
            "rate limit is reached",
        ),
        (
            "  Domain: shop.example.com\n  Type:   dns\n  Detail: DNS problem: NXDOMAIN looking up A",
            "public DNS",
        ),
        (
            "  Domain: shop.example.com\n  Type:   connection\n  Detail: 203.0.113.7: Fetching http://shop.example.com/"
            ".well-known/acme-challenge/x: Timeout during connect (likely firewall problem)",
            "firewall in front",
        ),
        (
            "  Domain: shop.example.com\n  Type:   unauthorized\n  Detail: 203.0.113.7: Invalid response from http",
            "Another server answered",
        ),
        (
            "  Type:   caa\n  Detail: CAA record prevents issuance\nurn:ietf:params:acme:error:caa",
            "CAA record",
        ),
        (
            "requests.exceptions.SSLError: CERTIFICATE_VERIFY_FAILED self signed certificate in chain",
            "certbot_ca_bundle",
        ),
        ("Requesting acme.example.com/directory: Connection refused", "acme_directory"),
        ("urn:ietf:params:acme:error:invalidContact :: contact email has forbidden domain", "acme_email"),
        (
            "urn:ietf:params:acme:error:rejectedIdentifier :: The server will not issue for shop.local",
            "not an internal one",
        ),
        ("urn:ietf:params:acme:error:accountDoesNotExist :: Account not found", "certbot unregister"),
        ("Error adding TXT record using the DigitalOcean API: 403", "domain:create"),
        ('Type:   unauthorized\nDetail: Incorrect TXT record "x" found', "propagation_seconds"),
        ("something nobody has seen", "letsencrypt.log"),
    ],
)
def test_what_the_authority_says_is_followed_by_what_to_do(said: str, advice: str) -> None:
    text = acme.explain(said)
    assert advice in text.splitlines()[-1]


def test_the_time_to_come_back_is_kept() -> None:
    text = acme.explain(
        "noise\nError creating new order :: too many failed authorizations, retry after 2026-11-20 12:00:00 UTC\n"
    )
    assert "retry after 2026-11-20 12:00:00 UTC" in text
    assert "noise" not in text


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("Another instance of Certbot is already running.", True),
        ("urn:ietf:params:acme:error:badNonce", True),
        ("Requesting ca.test/acme: Connection refused", True),
        ("urn:ietf:params:acme:error:rateLimited :: too many certificates", False),
        ("Type: unauthorized", False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(said: str, again: bool) -> None:
    assert bool(acme.TRANSIENT.search(said)) is again


def test_the_renewal_notes_are_read_without_their_comments(tmp_path: Path) -> None:
    (tmp_path / "renewal").mkdir()
    (tmp_path / "renewal/shop.conf").write_text(
        "# renew_before_expiry = 30 days\nversion = 2.1.0\n[renewalparams]\nserver = https://ca.test/directory?a=b\n"
    )
    assert acme.lineage(str(tmp_path), "shop")["server"] == "https://ca.test/directory?a=b"
    assert "# renew_before_expiry" not in acme.lineage(str(tmp_path), "shop")
    assert acme.lineage(str(tmp_path), "other") == {}
