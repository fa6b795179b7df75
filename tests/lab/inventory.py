"""An inventory for one lab droplet that is proxy, app server and database at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.lab import settings

ADMIN = "deploy"


def one_droplet(host: str, address: str, domain: str) -> dict[str, Any]:
    """With one app that is never deployed: it brings a site, a certificate and a database with it."""
    key = settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()
    app = {
        "type": "python",
        "source": {"git": "https://git.test/none.git", "version": "main", "path": "."},
        "command": "python3 -m http.server --bind $HOST $PORT",
        "domains": [domain],
        "health": "/",
        "database": {"extensions": ["pgcrypto"]},
    }
    everything = {
        "hosts": {
            host: {
                "ansible_host": address,
                "ansible_ssh_private_key_file": str(settings.SSH_KEY),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={settings.KNOWN_HOSTS}",
            }
        },
        "vars": {
            "acme_email": f"ops@{domain}",
            "acme_directory": "https://ca.test/acme/local/directory",
            "admins": [{"name": ADMIN, "ssh_keys": [key]}],
            "apps": {f"{host}-app": app},
        },
        "children": {group: {"hosts": {host: {}}} for group in ("proxy", "app", "database")},
    }
    return {"all": everything}


def write(folder: Path, inventory: dict[str, Any]) -> Path:
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    return path
