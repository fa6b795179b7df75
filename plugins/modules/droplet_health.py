#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: droplet_health
short_description: Say what of a droplet is well, and insist on what was well before
version_added: 0.1.0
description:
  - Looks at the services that start at boot, asks each app on its health path, and each site over HTTPS on
    the droplet itself. Changes nothing.
  - With O(expected), waits until all of that is well, and fails when some of it is not.
options:
  apps:
    description: Apps as P(shipshape.droplet.app_specs#filter) makes them.
    type: list
    elements: dict
    default: []
  sites: {description: Host names that the proxy answers to., type: list, elements: str, default: []}
  expected: {description: What an earlier look has found well., type: list, elements: str, default: []}
  patience: {description: Seconds that all of it may take to be well., type: int, default: 60}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Health | Look before
  shipshape.droplet.droplet_health:
    sites: [shop.example.com]
  register: before

- name: Health | Look after
  shipshape.droplet.droplet_health:
    sites: [shop.example.com]
    expected: "{{ before.well }}"
"""

RETURN = r"""
well: {description: "What is well, such as C(service nginx.service).", type: list, elements: str, returned: always}
ill: {description: What is not, and what was found instead., type: dict, returned: always}
"""

import http.client
import socket
import ssl
import time
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import port_of
from ansible_collections.shipshape.droplet.plugins.module_utils.app_service import probe
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store

AT_BOOT = ("enabled", "enabled-runtime", "generated")


def services(text: str) -> Dict[str, str]:
    """By service that starts at boot and is needed for long, nothing or its state; a failed one always counts."""
    found = {}
    for block in text.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        state = unit.get("ActiveState", "")
        if state == "failed" or (state == "active" and unit.get("UnitFileState") in AT_BOOT):
            found["service " + unit["Id"]] = "" if state == "active" else state
    return found


def site(name: str) -> str:
    """Nothing when the proxy on this host answers for the name. Its certificate is not judged here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", 443), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as stream:
                stream.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                answer = http.client.HTTPResponse(stream)
                answer.begin()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return "" if answer.status < 500 else f"HTTP {answer.status}"


def look(module: AnsibleModule) -> Dict[str, str]:
    """By what was looked at, nothing or what is wrong with it."""
    _code, out, _err = module.run_command(
        ["systemctl", "show", "--no-pager", "--property=Id,ActiveState,UnitFileState", "*.service"], check_rc=True
    )
    found = services(out)
    for app in module.params["apps"]:
        if app.get("health"):
            port = port_of(app, Store(app["name"], app["directory"]).colour)
            found["app " + app["name"]] = probe(
                app["address"], port, app["health"], status=app["health_status"], body=app["health_body"]
            )
    for name in module.params["sites"]:
        found["site " + name] = site(name)
    return found


def missing(expected: List[str], found: Dict[str, str]) -> Dict[str, str]:
    """What was well and is not, with what was found instead."""
    return {name: found.get(name, "not running") for name in expected if found.get(name, "not running")}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            apps=dict(type="list", elements="dict", default=[]),
            sites=dict(type="list", elements="str", default=[]),
            expected=dict(type="list", elements="str", default=[]),
            patience=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    deadline = time.monotonic() + module.params["patience"]
    while True:
        found = look(module)
        worse = missing(module.params["expected"], found)
        if not worse or time.monotonic() > deadline:
            break
        time.sleep(2)
    result: Dict[str, Any] = dict(
        changed=False,
        well=sorted(name for name, wrong in found.items() if not wrong),
        ill={name: wrong for name, wrong in found.items() if wrong},
    )
    if worse:
        lines = [f"  {name}: {wrong}" for name, wrong in sorted(worse.items())]
        module.fail_json(
            msg="What was well before is not any more, {} seconds later:\n{}\n"
            "Look at 'systemctl --failed' and at the journal of these services.".format(
                module.params["patience"], "\n".join(lines)
            ),
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
