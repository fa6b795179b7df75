"""The lab's own logic, as far as it needs no engine."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from tests import run
from tests.lab import image, local, registry, settings, trust
from tests.lab.engine import LabError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab folder of its own, with all that is kept in it."""
    for name, value in vars(settings).items():
        if isinstance(value, Path) and value.is_relative_to(settings.STATE) and name != "STATE":
            monkeypatch.setattr(settings, name, tmp_path / value.relative_to(settings.STATE))
    monkeypatch.setattr(settings, "STATE", tmp_path)
    return tmp_path


def test_keys_are_made_once_and_kept(state: Path) -> None:
    trust.ensure_keys()
    made = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    trust.ensure_keys()
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == made
    assert settings.CA_CERTIFICATE in made and settings.S3_KEYS in made and settings.SSH_KEY in made


@pytest.mark.usefixtures("state")
def test_secrets_are_readable_by_their_owner_alone() -> None:
    trust.ensure_keys()
    for path in (settings.SSH_KEY, settings.CA_KEY, settings.S3_KEYS, settings.APP_SECRETS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.usefixtures("state")
def test_authority_may_sign_one_level_of_authorities() -> None:
    trust.ensure_keys()
    certificate = x509.load_pem_x509_certificate(settings.CA_CERTIFICATE.read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 1)


@pytest.mark.parametrize("given", ["debian-11", "shipshape-droplet:debian-11"])
def test_image_is_known_by_its_short_and_its_full_name(given: str) -> None:
    assert image.release_of(given) == "debian-11"


def test_unknown_image_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(LabError, match=r"no droplet image is called 'debian-10'; there are: debian-11, debian-12"):
        image.release_of("debian-10")


def test_every_domain_of_the_local_inventory_leads_to_the_droplet() -> None:
    domains = {domain for app in local.inventory_apps() for domain in app.domains}
    assert domains == {"api.malar.test", "malar.test", "www.malar.test"}


def test_count_line_adds_up_what_the_stages_counted() -> None:
    outcomes = [
        run.Outcome("lint", 0, 0, 0, 61.0),
        run.Outcome("unit", 0, 120, 0, 30.0),
        run.Outcome("test-roles", 2, 7, 1, 600.0),
    ]
    assert run.summary(outcomes) == "test | 11 min 31 s: lint ok, unit 120, test-roles 1 FAILED\n128 passed, 1 failed"


def test_stage_that_breaks_before_it_counts_is_a_failure() -> None:
    assert run.summary([run.Outcome("lint", 1, 0, 0, 1.0)]) == "test | 0 min 1 s: lint 1 FAILED\n0 passed, 1 failed"


@pytest.mark.usefixtures("state")
def test_names_and_addresses_get_a_certificate_that_the_authority_has_signed() -> None:
    trust.ensure_keys()
    for given, kind in ((settings.REGISTRY_DOMAIN, x509.DNSName), ("10.77.0.1", x509.IPAddress)):
        certificate = x509.load_pem_x509_certificate(trust.certificate(given)[0])
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(settings.CA_CERTIFICATE.read_bytes()))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name) for name in names.get_values_for_type(kind)] == [given]


def test_the_login_of_the_registry_is_made_once_and_its_owner_s_alone(state: Path) -> None:
    assert registry.login() == registry.login()
    assert stat.S_IMODE(settings.REGISTRY_LOGIN.stat().st_mode) == 0o600


def test_one_image_is_the_same_bytes_each_time() -> None:
    assert registry._app_layer("1.0", "good") == registry._app_layer("1.0", "good")
    assert registry._app_layer("1.0", "good") != registry._app_layer("1.0", "sick")


@pytest.mark.parametrize("word", ["v1", "=1.0", "v1=", "v1=1.0:broken"])
def test_an_image_that_cannot_be_made_is_refused(word: str) -> None:
    with pytest.raises(LabError, match="is no image: TAG=VERSION"):
        registry._meant(word)
