"""System 5 on one droplet, brought up once for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lab import repository, services, settings
from tests.site import system

MALAR = settings.PROJECT / "inventories" / "malar-market"
DOMAINS = ("api.malar-market-ledger.com", "malar-market-ledger.com", "www.malar-market-ledger.com")


#: Their droplets answer to the same domains, which lead to one of them at a time.
ONE_AFTER_ANOTHER = ("test_malar_market.py", "test_more_droplets.py", "test_traefik.py")


class ByDroplet(LoadScopeScheduling):
    """Hands whole modules to a process, and those of one system to the same."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "malar-market" if module.endswith(ONE_AFTER_ANOTHER) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByDroplet:
    return ByDroplet(config, log)


@pytest.fixture(scope="session", autouse=True)
def lab() -> None:
    services.ensure_services()
    repository.publish(settings.EXAMPLE, "malar-market")


@pytest.fixture(scope="module")
def malar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[system.System]:
    """A bare droplet that the malar-market inventory points to; the tests of test_malar_market.py build on it.

    It goes with that module: the domains lead to one droplet at a time.
    """
    hosts = {"malar1": "10.77.0.40"}
    system.start("site", hosts, DOMAINS)
    yield system.System(MALAR, hosts, tmp_path_factory.mktemp("malar"), system.bucket("shipshape-site"), DOMAINS)
    system.stop("site", hosts)
