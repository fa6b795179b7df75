"""System 5 on one droplet, brought up once for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import repository, services, settings
from tests.site import malar_market, system


@pytest.fixture(scope="session", autouse=True)
def lab() -> None:
    services.ensure_services()
    repository.publish(settings.EXAMPLE, "malar-market")


@pytest.fixture(scope="module")
def malar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[system.System]:
    """A bare droplet that the malar-market inventory points to; the tests of test_malar_market.py build on it."""
    hosts, domains = {"malar1": "10.77.0.40"}, malar_market.domains()
    system.start("site", hosts, domains)
    yield system.System(
        malar_market.INVENTORY, hosts, tmp_path_factory.mktemp("malar"), system.bucket("shipshape-site"), domains
    )
    system.stop("site", hosts)
