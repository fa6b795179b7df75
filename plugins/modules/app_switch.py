#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_switch
short_description: Lead a proxy to the other release of apps, and watch how that goes
version_added: 0.1.0
description:
  - On the proxy's host. Makes requests for each app go to its new release, without a reload, asks it through the proxy,
    and then reads for a while in the proxy's access log how the app answers.
  - An app whose answers are too often server errors, or that does not answer any more, is led back at once and named in
    C(failures). The task itself does not fail.
options:
  apps:
    description: The apps, each with name, the colours C(to) and C(back), domain, health path, and C(watch) in seconds.
    type: list
    elements: dict
    required: true
  proxy: {description: Which proxy it is., type: str, choices: [nginx, traefik], default: nginx}
  settle: {description: Only see to it that the proxy leads where it should., type: bool, default: false}
  percent: {description: The share of server errors above which a release is given up., type: float, default: 1.0}
  errors: {description: The number of them below which nothing is given up., type: int, default: 3}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Switch, and watch for ten seconds
  shipshape.droplet.app_switch:
    apps: [{name: shop, to: green, back: blue, domain: shop.example.com, health: /health, watch: 10}]
"""

RETURN = r"""
failures:
  description: By app that was led back, the step and what was seen.
  type: dict
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_proxy, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            apps=dict(type="list", elements="dict", required=True),
            proxy=dict(type="str", choices=sorted(app_proxy.PROXIES), default="nginx"),
            settle=dict(type="bool", default=False),
            percent=dict(type="float", default=1.0),
            errors=dict(type="int", default=3),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    apps: list[dict[str, Any]] = [
        {"back": "", "domain": "", "health": "", **app, "watch": int(app.get("watch") or 0)}
        for app in module.params["apps"]
    ]
    proxy = app_proxy.PROXIES[module.params["proxy"]]()
    elsewhere = [app for app in apps if app_proxy.colour_of(app["name"]) != app["to"]]
    failures: dict[str, str] = {}

    def switch() -> None:
        for app in apps:
            proxy.switch(app["name"], app["to"])

    try:
        if not module.check_mode and module.params["settle"]:
            switch()
        elif not module.check_mode:
            failures = app_proxy.watch(proxy, apps, module.params["percent"], module.params["errors"], switch)
    except AppError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="the proxy cannot be led to {}: {}".format(", ".join(app["name"] for app in apps), error))
    result: dict[str, Any] = dict(changed=bool(elsewhere), failures=failures)
    if module._diff and elsewhere:
        result["diff"] = {
            "before": "".join("{name} leads elsewhere\n".format(**app) for app in elsewhere),
            "after": "".join("{name} leads to {to}\n".format(**app) for app in elsewhere),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
