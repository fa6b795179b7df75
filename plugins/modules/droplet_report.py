#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: droplet_report
short_description: Say in what state a droplet is at the end of a run
version_added: 0.1.0
description:
  - Reads the expiry of the certificates that are served, the time of the last good backup, units that have failed and
    whether a reboot is due. Changes nothing.
  - The action plugin turns this into lines for the operator, which the callback P(shipshape.droplet.summary#callback)
    prints after the recap.
options:
  urls: {description: Where the apps of this droplet answer., type: list, elements: str, default: []}
  certificates: {description: Certificate files that are served., type: list, elements: path, default: []}
  backup_state:
    description: Directory in which the backup keeps its status. Empty when there is no backup.
    type: str
    default: ""
  rebuild:
    description: File in which M(shipshape.droplet.rebuild) keeps what was restored. Empty when nothing was in this run.
    type: str
    default: ""
  replicas:
    description: File in which C(shipshape-database replicas) keeps what it found. Empty where there are none.
    type: str
    default: ""
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Report | Say how the droplet is
  shipshape.droplet.droplet_report:
    urls: ["https://shop.example.com"]
    certificates: [/etc/shipshape/tls/shop/fullchain.pem]
"""

RETURN = r"""
lines: {description: What the operator reads., type: list, elements: str, returned: always}
certificates:
  description: Path, time of expiry (UTC), issuer, and whether it is self-signed, of each certificate that is there.
  type: list
  elements: dict
  returned: always
failed_units: {description: Units in state failed., type: list, elements: str, returned: always}
reboot_required: {description: Whether an upgrade asks for a reboot., type: bool, returned: always}
backup:
  description: C(last), what the last attempt said of itself, and C(last_success), when the last good one ended.
  type: dict
  returned: always
rebuild:
  description: The moment that the droplet was rebuilt from (C(from)), when it C(started), and what was C(restored).
  type: dict
  returned: always
replicas:
  description: What was last found of the replicas (C(replicas), by host) and when (C(at)).
  type: dict
  returned: always
now: {description: The droplet's time (UTC)., type: str, returned: always}
"""

import datetime
import json
import os
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule


def certificate(module: AnsibleModule, path: str) -> Dict[str, Any]:
    """Expiry and issuer of a certificate file; empty when it is not there (yet)."""
    if not os.path.exists(path):
        return {}
    command = ["openssl", "x509", "-in", path, "-noout", "-enddate", "-issuer", "-subject", "-nameopt", "RFC2253"]
    code, out, _err = module.run_command(command)
    if code != 0:
        return {}
    fields = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    issuer, subject = fields.get("issuer", "").strip(), fields.get("subject", "").strip()
    return {
        "path": path,
        "expires": fields.get("notAfter", "").strip(),
        "issuer": issuer,
        # A certificate authority may issue certificates without a subject.
        "self_signed": bool(subject) and issuer == subject,
    }


def backup_status(directory: str) -> Dict[str, Any]:
    """What the backup wrote about its last attempt and its last success; empty where there was none."""
    status: Dict[str, Any] = {"last": {}, "last_success": ""}
    try:
        with open(os.path.join(directory, "last.json"), encoding="utf-8") as handle:
            status["last"] = json.load(handle)
        with open(os.path.join(directory, "last-success"), encoding="utf-8") as handle:
            status["last_success"] = handle.read().strip()
    except (OSError, ValueError):
        pass
    return status


def noted(path: str) -> Dict[str, Any]:
    """What a rebuild, or the look at the replicas, wrote; empty where there was none."""
    try:
        with open(path, encoding="utf-8") as handle:
            found: Dict[str, Any] = json.load(handle)
            return found
    except (OSError, ValueError):
        return {}


def failed_units(module: AnsibleModule) -> List[str]:
    _code, out, _err = module.run_command(["systemctl", "list-units", "--failed", "--no-legend", "--plain"])
    return [line.split()[0] for line in out.splitlines() if line.strip()]


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            urls=dict(type="list", elements="str", default=[]),
            certificates=dict(type="list", elements="path", default=[]),
            backup_state=dict(type="str", default=""),
            rebuild=dict(type="str", default=""),
            replicas=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    found = [certificate(module, path) for path in module.params["certificates"]]
    module.exit_json(
        changed=False,
        certificates=[item for item in found if item],
        backup=backup_status(module.params["backup_state"]),
        rebuild=noted(module.params["rebuild"]),
        replicas=noted(module.params["replicas"]),
        now=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        failed_units=failed_units(module),
        reboot_required=os.path.exists("/run/reboot-required") or os.path.exists("/var/run/reboot-required"),
    )


if __name__ == "__main__":
    main()
