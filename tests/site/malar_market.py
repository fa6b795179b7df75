"""The inventory of system 5, and copies of it at other domains: a domain leads to one droplet at a time."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.lab import settings

INVENTORY = settings.PROJECT / "inventories" / "malar-market"
DOMAIN = "malar-market-ledger.com"


def domains(domain: str = DOMAIN) -> tuple[str, str, str]:
    """Of the API, of the web app, and of what leads to that."""
    return f"api.{domain}", domain, f"www.{domain}"


def at(domain: str, folder: Path) -> Path:
    """A copy of the inventory in `folder`, at a domain of its own."""
    inventory = folder / "inventory"
    shutil.copytree(INVENTORY, inventory)
    main = inventory / "group_vars" / "all" / "main.yml"
    text = main.read_text(encoding="utf-8")
    # Neither where the code is, nor who is written to.
    main.write_text(re.sub(rf"(?<!git\.)(?<!@){re.escape(DOMAIN)}", domain, text), encoding="utf-8")
    return inventory
