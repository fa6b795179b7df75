"""Keys and sources of packages."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.postgresql_tuning import postgresql_package_reasons
from ansible_collections.shipshape.droplet.plugins.module_utils import apt
from ansible_collections.shipshape.droplet.plugins.modules import packages

SOURCE: dict[str, Any] = {
    "name": "example", "uris": "https://packages.example.com:8443/debian", "suites": "bookworm", "components": "main",
    "key_url": "https://packages.example.com/key.asc", "key_fingerprints": [], "pin": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A real key made by GnuPG: its armoured text and its fingerprint."""
    home = tmp_path_factory.mktemp("gnupg")
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--passphrase", "", "--quick-generate-key", "Shipshape Test", "rsa2048", "sign"], check=True)
    armoured = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True, text=True).stdout
    listing = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True).stdout
    return armoured, next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))


def test_a_keys_fingerprint_is_the_one_gnupg_says(key: tuple[str, str]) -> None:
    armoured, fingerprint = key
    assert packages.fingerprints(armoured) == [fingerprint]


def test_all_keys_of_a_file_with_several_blocks_count(key: tuple[str, str]) -> None:
    armoured, fingerprint = key
    assert packages.fingerprints(armoured + armoured) == [fingerprint, fingerprint]


def test_a_page_that_is_no_key_has_no_fingerprint() -> None:
    assert packages.fingerprints("<html>404</html>") == []


def test_a_source_is_one_deb822_file_signed_by_its_own_key() -> None:
    assert packages.source_files(SOURCE) == {
        "/etc/apt/sources.list.d/example.sources": (
            "# Written by Shipshape.\nTypes: deb\nURIs: https://packages.example.com:8443/debian\nSuites: bookworm\n"
            "Components: main\nSigned-By: /etc/apt/keyrings/example.asc\n"
        )
    }


def test_a_pin_names_the_repositorys_host_without_its_port() -> None:
    files = packages.source_files(dict(SOURCE, pin=900))
    assert "Pin: origin packages.example.com\nPin-Priority: 900\n" in files["/etc/apt/preferences.d/example"]


def test_lists_that_were_never_fetched_are_endlessly_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "LISTS", str(tmp_path))
    assert packages.lists_age() == float("inf")


@pytest.mark.parametrize(
    "said",
    [
        "E: Unable to locate package {}\n",
        "E: Package '{}' has no installation candidate",
        "E: Package {} has no installation candidate",
    ],
)
def test_a_package_that_no_source_has_is_told_with_who_needs_it(said: str) -> None:
    databases = [{"name": "shop", "extensions": ["vector", "pgcrypto"]}, {"name": "desk", "extensions": ["vector"]}]
    reasons = postgresql_package_reasons(databases, "13")
    text = apt.explained(said.format("postgresql-13-pgvector"), reasons)
    assert "postgresql-13-pgvector is for extension vector of database shop, extension vector of database desk." in text
    assert "`postgresql_origin: pgdg`" in text
    assert apt.explained(said.format("other"), reasons) == said.format("other")
