"""One app as every module of a deploy takes it, and how they all begin and end."""

from __future__ import annotations

import re
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.app_deploy_key import Access
from ansible_collections.shipshape.droplet.plugins.module_utils.app_env import unseal
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import TYPES

# The login of a URL is secret; over ssh it is only a name, such as git.
_URL_PASSWORD = re.compile(r"(?<!ssh)://([^/@]*)@")


def app_options() -> dict[str, Any]:
    """The argument spec of one app; its documentation is the fragment of the same name."""
    return dict(
        name=dict(type="str", required=True),
        type=dict(type="str", choices=list(TYPES), required=True),
        user=dict(type="str", required=True),
        directory=dict(type="path", required=True),
        git=dict(type="str", default=""),
        host_key=dict(type="str", default="", no_log=False),
        archive=dict(type="str", default=""),
        checksum=dict(type="str", default=""),
        version=dict(type="str", required=True),
        path=dict(type="str", default="."),
        build=dict(type="str", default=""),
        publish=dict(type="str", default=""),
        container=dict(
            type="dict",
            options=dict(
                image=dict(type="str", required=True),
                port=dict(type="int", default=0),
                volumes=dict(type="dict", default={}),
                capabilities=dict(type="list", elements="str", default=[]),
                memory=dict(type="str", default=""),
                cpus=dict(type="float", default=0),
                sockets=dict(type="list", elements="str", default=[]),
                service=dict(type="str", default=""),
                files=dict(type="list", elements="str", default=[]),
                server=dict(type="str", default=""),
            ),
        ),
        command=dict(type="str", default=""),
        migrate=dict(type="str", default=""),
        migrate_sql=dict(type="str", default=""),
        seed=dict(type="str", default=""),
        hooks=dict(type="dict", default={}),
        shared=dict(type="list", elements="str", default=[]),
        processes=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                name=dict(type="str", required=True),
                command=dict(type="str", required=True),
                count=dict(type="int", default=1),
                stop_timeout=dict(type="int", default=60),
                memory=dict(type="str", default=""),
                cpus=dict(type="float", default=0),
            ),
        ),
        cron=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(name=dict(type="str", required=True), command=dict(type="str", required=True)),
        ),
        health=dict(type="str", default=""),
        health_status=dict(type="int", default=200),
        health_body=dict(type="str", default=""),
        health_timeout=dict(type="int", default=0),
        address=dict(type="str", default="127.0.0.1"),
        port=dict(type="int", default=0),
        second_port=dict(type="int", default=0),
        domain=dict(type="str", default=""),
        domain_health=dict(type="str", default=""),
        watch_seconds=dict(type="int", default=-1),
        keep_releases=dict(type="int", default=5),
        settings_fingerprint=dict(type="str", default="", no_log=False),
        # Of a guessable secret a fingerprint gives the guess away.
        environment_fingerprint=dict(type="str", default="", no_log=True),
    )


def port_of(app: dict[str, Any], colour: str) -> int:
    """Where an app listens under that colour. One that no proxy leads to has one port, and one release at a time."""
    return int(app["second_port"] if colour == "green" and app["second_port"] else app["port"])


def accesses(module: AnsibleModule, apps: list[dict[str, Any]]) -> dict[str, Access]:
    """How the repository of each app is reached; no line of a key is in anything that the module says."""
    keys = unseal(module.params["deploy_keys"])
    found = {app["name"]: Access(str(keys.get(app["name"]) or ""), app["host_key"]) for app in apps}
    for access in found.values():
        module.no_log_values.update(line for line in access.key.splitlines() if line and "-----" not in line)
    return found


def execute(module: AnsibleModule, work: Callable[[AnsibleModule], dict[str, Any]], step: str) -> None:
    """Do the module's work; a failed step ends it with the message for the operator."""
    umask.ordinary()
    apps = module.params.get("apps") or [module.params["app"]]
    for app in apps:
        app_disk.directories[app["name"]] = app["directory"]
        for login in _URL_PASSWORD.findall(app["git"] + " " + app["archive"]):
            module.no_log_values.update(part for part in [login, login.partition(":")[2]] if part)
    try:
        result = work(module)
    except AppError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        names = ", ".join(app["name"] for app in apps)
        module.fail_json(msg=f"{names}: {step}: {app_disk.in_words(apps[0]['name'], step, str(error))}")
    else:
        module.exit_json(**result)
