"""How names are proven changes on a live droplet: over HTTP, by records in DNS, and back, under load."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.lab import dns, mirror, settings
from tests.lab.engine import docker
from tests.site import system
from tests.site.load import Load
from tests.site.system import PROJECT, Run, System

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="each way is in a scenario: make test-all")

NAME, HOSTS = "shipshape-proofs-edge", {"edge": "10.77.0.67"}
DOMAIN = "proofs.wild.test"
VARIABLES: dict[str, Any] = {
    "acme_email": "ops@wild.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "docker": False,
    "apps": {"page": {"type": "route", "domains": [DOMAIN], "url": "https://insightpulse-web.ondigitalocean.app"}},
}
CERTBOT = "/etc/shipshape/tls/page/fullchain.pem"
STORED = """python3 -c '
import base64, json
for one in json.load(open("/var/lib/traefik/acme-ca.wild.test.json"))["acme"]["Certificates"]:
    print(base64.b64decode(one["certificate"]).decode())'"""


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    dns.ensure_dns()
    folder = tmp_path_factory.mktemp("proofs")
    inventory = folder / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    groups: dict[str, Any] = {"proxy": {"hosts": {"edge": {}}}, "app": {"hosts": {"edge": {}}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(VARIABLES), encoding="utf-8")
    system.start("proofs", HOSTS, (DOMAIN,))
    # As on a real droplet, whose resolver finds the zones' name servers.
    docker("exec", NAME, "sh", "-c", f"echo nameserver {settings.DNS_ADDRESS} >/etc/resolv.conf")
    with mirror.traefik(folder, HOSTS["edge"]) as address:
        extra = {"acme_directory": "https://ca.wild.test/acme/local/directory", "traefik_mirror": address}
        yield System(inventory, HOSTS, folder, {}, (DOMAIN,), extra)
    system.stop("proofs", HOSTS)


def play(edge: System) -> Run:
    run = edge.play("playbooks/proxy.yml", "--diff")
    assert run.code == 0, run.tail
    assert dns.token() not in run.output
    return run


def serial(stored: str) -> str:
    """Of the certificate that is served, verified by the authority's root alone; it is the one that is stored."""
    words = (PROJECT / "molecule/certbot/served.py", HOSTS["edge"], settings.CA_CERTIFICATE, DOMAIN)
    # A Traefik that has just been started reads its own certificates a moment after it answers.
    deadline = time.monotonic() + 5
    while True:
        shown = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
        if shown.returncode == 0 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert shown.returncode == 0, shown.stderr
    found: str = json.loads(shown.stdout)[DOMAIN]
    kept = docker("exec", NAME, "bash", "-c", f"{stored} | openssl x509 -noout -serial")
    assert kept.strip() == f"serial={found}"
    return found


@pytest.mark.parametrize(
    ("proxy", "own", "stored"),
    [("nginx", "", f"cat {CERTBOT}"), ("traefik", "", f"cat {CERTBOT}"), ("traefik", "ops@wild.test", STORED)],
)
def test_how_names_are_proven_changes_and_no_request_is_lost(edge: System, proxy: str, own: str, stored: str) -> None:
    edge.extra.pop("acme_dns", None)
    edge.extra.update(proxy=proxy, traefik_acme_email=own)
    play(edge)
    serials = [serial(stored)]
    by_dns = {"provider": "digitalocean", "token": dns.token(), "propagation_seconds": 1}
    for given in ({"acme_dns": by_dns}, {}):
        edge.extra.pop("acme_dns", None)
        edge.extra.update(given)
        with Load(DOMAIN, HOSTS["edge"], again=True) as load:
            play(edge)
        print(f"{proxy} {own}: {len(load.seen)} answers, {len(load.failed)} lost, none for {load.gap:.1f} s at most")
        assert len(load.seen) > 50
        if own:
            # Traefik reads once how it proves names, when it starts, and keeps the certificate that it has.
            assert load.gap < 6, load.failed
        else:
            assert load.failed == []
        serials.append(serial(stored))
        again = play(edge)
        assert again.count("changed") == 0, again.tail
    assert len(set(serials)) == (1 if own else 3)
