"""Verifiers: compared with ones that a real PostgreSQL 15 made."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_scram as scram

# CREATE ROLE … PASSWORD …; SELECT rolpassword FROM pg_authid
STORED = {
    "pencil": "SCRAM-SHA-256$4096:p1CVwYDiknsBar1HLPALFw==$6ueP9H4rwyNGIE1RJ33KYd5f/SaU1Nfp72wIZBuQBGg="
    ":5SIg1hemFrkv3y1wMXOKJRYJuLKrgEjmN+HsIeUvGaw=",
    # A soft hyphen is mapped to nothing.
    "I\u00adX": "SCRAM-SHA-256$4096:Kpx2/irp/7oMCtF9eA1x/Q==$wApb4vSEZEY74cQV5gQQ5wWCllEtIaQ2zZfTpGC8GvQ="
    ":9riOw18fu7M8ht5pSt4AecCNLdz6SrcUPRC9d9KJ+rQ=",
    # A no-break space becomes a space, a superscript two a two.
    "p\u00a0\u00b2": "SCRAM-SHA-256$4096:0fwOfsrZ6j3yJPbEGJmlag==$Feen7qqsOoJhnwMu75Id6pjFMXjBPcO4CHvAJyP5ciM="
    ":xsYQrgAqjUzAiNDYaFXu8JlDYetX7dVl6hpIhnYd7Eg=",
    # Right-to-left text that ends in a digit is prohibited, so it is used as it is.
    "\u0627\u0031": "SCRAM-SHA-256$4096:M0UntlfWVixB1nlbq/sxGw==$nrNS2kxe//hPo4vYgDr8DcpGKBF/mSUM6QQ+kwjDJG4="
    ":6PtlC0TD1ERC8hTQvSQHXWysvxXCI2Je9SU3ReAQy0Q=",
    # The same, where the mapping would change it.
    "\u0627\u00b2": "SCRAM-SHA-256$4096:/NIhgIEHuLByPzijfWD/AA==$FOzhSqIxUJMLRc7szbo4uw24gEtKQRRaathYxoyj7QA="
    ":gytZACyn5i0qNsBfm+jJjdHkxrNMVWYM35NowkbNYhE=",
    # So is a control character, and then nothing else is mapped either.
    "x\u0007\u00b2": "SCRAM-SHA-256$4096:IM+B+xoTTYMGFAMmN2EI9A==$qBS30xuv7zmFIfSa6kHlm4KsQzDnNEMCbCLG2DOKEUs="
    ":gk/6DKtXpyHvImEyT+vbJu8J4UBGeYLzKdsQFspJs94=",
}


@pytest.mark.parametrize("password", STORED)
def test_a_verifier_of_the_servers_own_making_matches_its_password(password: str) -> None:
    assert scram.matches(password, STORED[password])


@pytest.mark.parametrize(("given", "same"), [("IX", "I\u00adX"), ("p 2", "p\u00a0\u00b2")])
def test_what_saslprep_maps_to_the_same_text_is_the_same_password(given: str, same: str) -> None:
    assert scram.matches(given, STORED[same])


@pytest.mark.parametrize("password", ["", "Pencil", "pencil ", "x\u00072"])
def test_another_password_does_not_match(password: str) -> None:
    assert not any(scram.matches(password, stored) for stored in STORED.values())


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "md5c5c5a3a8ee1d2d7e0d8a3d1a3bd3e8c1",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$x:y$z",
        "SCRAM-SHA-256$1:AA==$AA==:AA==",
    ],
)
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not scram.matches("pencil", stored)


def test_two_verifiers_of_one_password_differ_and_both_match() -> None:
    first, second = scram.verifier("pässword"), scram.verifier("pässword")
    assert first != second
    assert scram.matches("pässword", first)
    assert scram.matches("pässword", second)


def test_other_iterations_than_ours_are_understood() -> None:
    assert scram.matches("pencil", scram.verifier("pencil", iterations=7))
