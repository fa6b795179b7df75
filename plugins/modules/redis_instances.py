#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_instances
short_description: Bring the instances of Redis on this host to the declared state
version_added: 0.1.0
description:
  - Applies the files as M(shipshape.droplet.files) does, beside them each instance's list of users, and runs the
    instances as the package's units C(redis-server@NAME).
  - Makes a password for each user once. Redis is given the hash alone, and reads a changed list without a restart.
  - Sees that each user can log in, and that the memory limit, the policy and the persistence declared are in force.
  - Stops instances of ours that are not listed any more, unless somebody is connected, and the package's own on port
    6379 unless there is data in it.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  instances:
    description: The instances.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Its name., type: str, required: true}
      port: {description: Its port., type: int, required: true}
      memory: {description: "The most it holds, such as V(128mb).", type: str, required: true}
      policy: {description: What goes when it is full., type: str, required: true}
      persistence: {description: How it outlives a restart., type: str, choices: [none, rdb, aof], required: true}
      users: {description: Who may log in., type: list, elements: str, default: []}
      addresses: {description: Not read here., type: list, elements: str, default: []}
      sources: {description: Not read here., type: list, elements: str, default: []}
  keep_packaged:
    description: Leave the package's own instance alone.
    type: bool
    default: false
  secrets_directory:
    description: Where the passwords are kept, readable by root only.
    type: path
    default: /etc/shipshape/redis
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Service | Run a cache
  shipshape.droplet.redis_instances:
    instances: [{name: cache, port: 16379, memory: 128mb, policy: allkeys-lru, persistence: none, users: [shop]}]
    files:
      - {path: /etc/redis/redis-cache.conf, template: redis.conf.j2, restart: redis-server@cache.service}
"""

RETURN = r"""
changed_files:
  description: The paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: [generate the password of shop, start redis-server@cache.service]
"""

import glob
import os
import re
import subprocess
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    file_entry,
    file_set,
    redis_server,
    secret_file,
    umask,
)
from ansible_collections.shipshape.droplet.plugins.module_utils import redis_plan as planning

PASSWORD_LENGTH = 32
PACKAGED, PACKAGED_PORT = "redis-server.service", 6379
#: Seconds for an instance to read what it keeps.
PATIENCE = 30


def unit_of(name: str) -> str:
    return f"redis-server@{name}.service"


def unit(name: str, **wanted: Any) -> Dict[str, Any]:
    return dict(dict(name=name, state=None, enabled=None, masked=None, optional=False), **wanted)


def passwords_of(module: AnsibleModule) -> Tuple[Dict[str, str], List[str]]:
    """Everybody's password, and whose were made."""
    names = sorted({planning.ADMIN, *(user for each in module.params["instances"] for user in each["users"])})
    found, made = {}, []
    for name in names:
        path = os.path.join(module.params["secrets_directory"], f"{name}.password")
        secret = secret_file.read(path)
        if secret is None:
            secret = secret_file.generate(PASSWORD_LENGTH)
            made.append(f"generate the password of {name} for Redis")
            if not module.check_mode:
                secret_file.write(path, secret)
        found[name] = secret
    return found, made


def installed_version(module: AnsibleModule) -> Tuple[int, int]:
    program = module.get_bin_path("redis-server")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout if program else ""
    version: Tuple[int, int] = planning.version_of(said)
    return version


def lists_of_users(module: AnsibleModule, passwords: Dict[str, str]) -> Dict[str, file_entry.Entry]:
    """Each instance's list of users, as one more file."""
    version = installed_version(module)
    entries = {}
    for each in module.params["instances"]:
        path = "/etc/redis/redis-{}.acl".format(each["name"])
        spec = dict(file_entry.PLAIN, path=path, group="redis", mode="0640", secret=True)
        entries[each["name"]] = file_entry.Entry(module, spec, planning.acl(each["users"], passwords, version))
    return entries


def clients(module: AnsibleModule, configuration: str) -> List[str]:
    """The users that are connected to the instance with that configuration, but for this program."""
    port = re.search(r"^port (\d+)$", configuration, re.MULTILINE)
    password = secret_file.read(os.path.join(module.params["secrets_directory"], f"{planning.ADMIN}.password"))
    if port is None or password is None:
        return []
    said = redis_server.ask(int(port.group(1)), ["CLIENT", "LIST"], planning.ADMIN, password) or ""
    return sorted(set(re.findall(r"\buser=(\S+)", said)) - {planning.ADMIN})


def left_over(module: AnsibleModule) -> Tuple[List[file_entry.Entry], List[Dict[str, Any]]]:
    """What there is of instances that are not listed any more: files to remove, units to stop. Their data stays."""
    entries, units = [], []
    listed = {each["name"] for each in module.params["instances"]}
    for path in sorted(glob.glob("/etc/redis/redis-*.conf")):
        match = re.match(r"redis-(.+)\.conf$", os.path.basename(path))
        name = match.group(1) if match else ""
        found = file_entry.Found(path)
        if not name or name in listed or not found.data.startswith(file_entry.OUR_MARK):
            continue
        connected = clients(module, found.text)
        if connected:
            module.warn(
                f"{unit_of(name)} is no instance of the inventory any more, and was left alone: it is used by "
                f"{', '.join(connected)}. The run after the last of them has gone ends it"
            )
            continue
        units.append(unit(unit_of(name), state="stopped", enabled=False, optional=True))
        paths = [path, path[: -len(".conf")] + ".acl", f"/etc/systemd/system/{unit_of(name)}.d"]
        entries += [file_entry.Entry(module, dict(file_entry.PLAIN, state="absent", path=each), None) for each in paths]
    return entries, units


def packaged(module: AnsibleModule) -> List[Dict[str, Any]]:
    """The package's own instance asks for no password; it ends, unless somebody has put something there."""
    if module.params["keep_packaged"] or not module.get_bin_path("redis-cli"):
        return []
    state = subprocess.run(["systemctl", "is-active", "--quiet", PACKAGED], check=False).returncode
    size = redis_server.ask(PACKAGED_PORT, ["DBSIZE"]) if state == 0 else "0"
    if size != "0":
        module.warn(
            f"{PACKAGED} runs on port {PACKAGED_PORT} beside the instances of `redis`, and was left alone: "
            f"it has {size or 'no answer'} keys. When nobody needs them: systemctl disable --now {PACKAGED}"
        )
        return []
    return [unit(PACKAGED, state="stopped", enabled=False, optional=True)]


def see_to(instance: Dict[str, Any], passwords: Dict[str, str], fresh: bool) -> Tuple[List[str], str]:
    """Have what is declared in force in an instance that runs. (What was done, what is wrong)."""
    port, name = instance["port"], instance["name"]
    admin = (planning.ADMIN, passwords[planning.ADMIN])
    done: List[str] = []
    problem = redis_server.wait(port, *admin, seconds=PATIENCE)
    if problem:
        return done, f"{problem}, to the user {planning.ADMIN}"
    everybody = sorted({"default", planning.ADMIN, *instance["users"]})
    if fresh or redis_server.users(port, *admin) != everybody:
        said = redis_server.ask(port, ["ACL", "LOAD"], *admin)
        if said != "OK":
            return done, f"it does not take its list of users: {said}"
        done.append(f"load the users of {unit_of(name)}")
    wanted = planning.wanted_settings(instance)
    found = redis_server.in_force(port, list(wanted), *admin) or {}
    for setting, value in wanted.items():
        if found.get(setting) != value:
            said = redis_server.ask(port, ["CONFIG", "SET", setting, value], *admin)
            if said != "OK":
                return done, f"{setting} is {found.get(setting)}, not {value}: {said}"
            done.append(f"set {setting} of {unit_of(name)}")
    return done, "; ".join(redis_server.refused(port, passwords, instance["users"]))


def main() -> None:
    instance = dict(
        name=dict(type="str", required=True),
        port=dict(type="int", required=True),
        memory=dict(type="str", required=True),
        policy=dict(type="str", required=True),
        persistence=dict(type="str", choices=["none", "rdb", "aof"], required=True),
        users=dict(type="list", elements="str", default=[]),
        addresses=dict(type="list", elements="str", default=[]),
        sources=dict(type="list", elements="str", default=[]),
    )
    module = AnsibleModule(
        argument_spec=dict(
            file_set.argument_spec(),
            instances=dict(type="list", elements="dict", default=[], options=instance),
            keep_packaged=dict(type="bool", default=False),
            secrets_directory=dict(type="path", default="/etc/shipshape/redis", no_log=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    instances = module.params["instances"]
    problems = planning.problems(instances)
    if problems:
        module.fail_json(msg="\n".join(problems))
    try:
        passwords, done = passwords_of(module)
        lists = lists_of_users(module, passwords)
        gone, stopped = left_over(module)
        module.params["units"] += packaged(module) + stopped
        module.params["units"] += [unit(unit_of(each["name"]), state="started", enabled=True) for each in instances]
        # The list first: an instance that starts reads it.
        entries = list(lists.values()) + file_set.declared(module) + gone
        result = file_set.converge(module, entries)
    except (secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=str(error))
    for each in [] if module.check_mode else instances:
        started = any(action.endswith(" " + unit_of(each["name"])) for action in result["actions"])
        acted, problem = see_to(each, passwords, lists[each["name"]].changed and not started)
        done += acted
        if problem:
            module.fail_json(
                msg="Redis {name} on port {port}: {problem}. See: journalctl -u {unit}".format(
                    **each, problem=problem, unit=unit_of(each["name"])
                )
            )
    result["actions"] += done
    result["changed"] = result["changed"] or bool(done)
    if module._diff and done:
        lines = "".join(action + "\n" for action in done)
        result["diff"].append(dict(before="", after=lines, before_header="Redis", after_header="Redis"))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
