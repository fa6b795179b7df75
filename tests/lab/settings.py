"""Names, addresses and paths of the lab. All it makes carries these names, so that `down` finds it again."""

from __future__ import annotations

import os
from pathlib import Path

#: `make test-all`: what is a sample in `make test`, whole.
EVERYTHING = os.environ.get("SHIPSHAPE_EVERYTHING") == "1"

PROJECT = Path(__file__).resolve().parents[2]
STATE = PROJECT / ".lab"

SSH_KEY = STATE / "ssh" / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
CA_CERTIFICATE = STATE / "ca" / "root.crt"
CA_KEY = STATE / "ca" / "root.key"
S3_KEYS = STATE / "s3.json"
APP_SECRETS = STATE / "secrets.json"

# Where Debian and Ubuntu keep the authorities an administrator added, an intercepting proxy's for example.
EXTRA_AUTHORITIES = Path("/usr/local/share/ca-certificates")

LABEL = "shipshape.lab"
DROPLET_IMAGE = "shipshape-droplet"
BASE_IMAGE = "shipshape-base"
DEFAULT_RELEASE = "debian-12"

# Outside 172.16.0.0/12, where Docker inside a droplet takes its own bridge from. The upper half is handed out
# by Docker, the lower half is for addresses that an inventory names.
NETWORK = "shipshape"
SUBNET = "10.77.0.0/24"
DYNAMIC_RANGE = "10.77.0.128/25"

SERVICES = "shipshape-services"
SERVICES_ADDRESS = "10.77.0.2"
SERVICES_DOMAINS = (
    "ca.test",
    "s3.test",
    "git.test",
    "git.malar-market-ledger.com",
    "git.portun.app",
    "git.insightpulseai.net",
    "insightpulse-web.ondigitalocean.app",
    "odoo-saas-platform.ondigitalocean.app",
)

REGISTRY = "shipshape-registry"
REGISTRY_ADDRESS = "10.77.0.5"
REGISTRY_DOMAIN = "registry.test"
REGISTRY_LOGIN = STATE / "registry.json"

DNS = "shipshape-dns"
DNS_ADDRESS = "10.77.0.6"
DNS_ACCOUNT = STATE / "dns.json"

LOCAL_DROPLET = "shipshape-local"
LOCAL_ADDRESS = "10.77.0.10"
LOCAL_INVENTORY = PROJECT / "inventories" / "local"
EXAMPLE = PROJECT / "examples" / "malar-market"
