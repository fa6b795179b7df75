#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_promotion
short_description: Make a primary of a replica, step by step
version_added: 0.2.0
description:
  - Finds the host's one cluster C(main) by itself, so that a failover needs no fact of the host.
options:
  step:
    description:
      - V(look) says where the cluster is in the write-ahead log, and changes nothing.
      - V(fence) stops the cluster, keeps it from being started, and says where its log ends if it has ended well.
      - V(promote) waits until the replica has O(until), makes it the primary, and waits until it can be written to.
        What the replicas on O(peers) may still lack of the log is kept for them.
      - V(note) writes O(record), by which the next run knows who is the primary.
      - V(synchronous) has commits wait for those of O(peers) that stream, or for nobody.
    type: str
    required: true
    choices: [look, fence, promote, note, synchronous]
  until: {description: Place in the log to wait for., type: str, default: ""}
  record: {description: Name of the primary and the number of promotions., type: str, default: ""}
  peers: {description: Hosts with the other replicas., type: list, elements: str, default: []}
  timeout: {description: Seconds to wait for the replica., type: int, default: 60}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Promote | Make it the primary
  shipshape.droplet.postgresql_promotion:
    step: promote
    until: 0/3000060
"""

RETURN = r"""
answers: {description: Whether a server answers., type: bool, returned: with step look}
recovering: {description: Whether it is a replica., type: bool, returned: with step look}
streaming: {description: Whether it streams from its primary., type: bool, returned: with step look}
replicas: {description: Names of the replicas that are connected to it., type: list, returned: with step look}
position: {description: Where it is in the write-ahead log; empty when nobody knows., type: str, returned: success}
age: {description: Seconds since the last transaction that a replica has., type: float, returned: with step look}
actions: {description: What was done., type: list, elements: str, returned: success}
"""

import os
import subprocess
import time
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_replication as replication
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_standby as standby
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    Cluster,
    ServerError,
    live_versions,
)

RECORD = "/etc/shipshape/postgresql/primary"
WRITTEN = "SELECT to_json(pg_current_wal_lsn()::text)"
STREAMING = """
SELECT json_build_object('current', current_setting('synchronous_standby_names'), 'streaming',
  (SELECT coalesce(json_agg(application_name), '[]') FROM pg_stat_replication WHERE state = 'streaming'))
"""
NO_ANSWER: Dict[str, Any] = dict(answers=False, recovering=False, streaming=False, replicas=[], position="", age=None)


def local(module: AnsibleModule) -> Optional[Cluster]:
    """The host's cluster; None where there is none, as on a bare host, or on a primary that has lost all."""
    found = live_versions()
    if len(found) == 1:
        return Cluster(found[0])
    missed = not found and (module.params["step"] in ("look", "fence") or module.check_mode)
    if not missed:
        listed = ", ".join(f"{version}/main" for version in found) or "none"
        module.fail_json(msg=f"this host must have one cluster `main`; found: {listed}. A whole run sets one up.")
    return None


def look(module: AnsibleModule, cluster: Cluster) -> Dict[str, Any]:
    try:
        state = standby.followed(cluster)
    except ServerError:
        return NO_ANSWER
    written = state["received"] if state["recovering"] else cluster.query(WRITTEN)
    return dict(
        answers=True,
        recovering=state["recovering"],
        streaming=state["streaming"],
        replicas=state["replicas"],
        position=written or "",
        age=state["age"],
    )


def fence(module: AnsibleModule, cluster: Cluster) -> Dict[str, Any]:
    if module.check_mode:
        return dict(position="", actions=["stop the cluster for good"])
    data = standby.data_directory(cluster)
    standby.stop(cluster, data, module.params["timeout"])
    # Masked, it starts neither at boot nor by hand; the run that makes a replica of it takes that back.
    subprocess.run(["systemctl", "mask", "--quiet", cluster.unit], check=True)
    control = standby.control(cluster, data)
    ended = control.get("Database cluster state") == "shut down"
    position = control.get("Latest checkpoint location", "") if ended else ""
    return dict(position=position, actions=["stop the cluster for good"])


def promote(module: AnsibleModule, cluster: Cluster) -> Dict[str, Any]:
    until = module.params["until"]
    if not standby.followed(cluster)["recovering"]:
        return dict(position=cluster.query(WRITTEN), actions=[])
    # Before: by its first checkpoint the new primary would throw away what those who are a little behind still need.
    slots = replication.plan_slots(cluster.query(replication.SLOTS), module.params["peers"])
    actions = [*(summary for summary, _ in slots), "promote"]
    if module.check_mode:
        return dict(position="", actions=actions)
    deadline = time.monotonic() + module.params["timeout"]
    while until and replication.position(standby.followed(cluster)["received"] or "0/0") <= replication.position(until):
        if time.monotonic() > deadline:
            have = standby.followed(cluster)["received"]
            module.fail_json(
                msg=f"the replica has the log up to {have}, and the old primary has ended at {until}. That one is "
                "stopped and has all of it: run site.yml to go back to it, or promote with -e accept_loss=true."
            )
        time.sleep(0.1)
    for _, sql in slots:
        cluster.execute(sql + ";")
    if cluster.execute(f"SELECT pg_promote(true, {int(module.params['timeout'])})").strip() != "t":
        module.fail_json(msg=f"the server did not become a primary:\n{cluster.log_tail()}")
    return dict(position=cluster.query(WRITTEN), actions=actions)


def note(module: AnsibleModule) -> Dict[str, Any]:
    record = module.params["record"]
    if secret_file.read(RECORD) == record:
        return dict(position="", actions=[])
    if not module.check_mode:
        secret_file.write(RECORD, record)
    return dict(position="", actions=[f"note {record}"])


def synchronous(module: AnsibleModule, cluster: Cluster) -> Dict[str, Any]:
    path = os.path.join(cluster.configuration, "conf.d", replication.SYNCHRONOUS)
    actions: List[str] = []
    if module.check_mode and cluster.settings_if_up() is None:
        return dict(position="", actions=actions)  # no replica can stream yet
    state = cluster.query(STREAMING)
    value = replication.synchronous_names(module.params["peers"], state["streaming"], state["current"])
    wanted = f"# Managed by Shipshape.\nsynchronous_standby_names = '{value}'\n" if value else ""
    before = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as handle:
            before = handle.read()
    if before == wanted:
        return dict(position="", actions=actions)
    actions.append(f"have commits wait for {value}" if value else "have commits wait for no replica")
    if not module.check_mode:
        if wanted:
            with open(path, "w", encoding="utf-8") as handle:
                handle.write(wanted)
        else:
            os.remove(path)
        cluster.reload()
    return dict(position="", actions=actions)


STEPS = {"look": look, "fence": fence, "promote": promote, "synchronous": synchronous}


def work(module: AnsibleModule) -> Dict[str, Any]:
    step = module.params["step"]
    if step == "note":
        return note(module)
    cluster = local(module)
    return NO_ANSWER if cluster is None else STEPS[step](module, cluster)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            step=dict(type="str", required=True, choices=sorted([*STEPS, "note"])),
            until=dict(type="str", default=""),
            record=dict(type="str", default=""),
            peers=dict(type="list", elements="str", default=[]),
            timeout=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    try:
        result = work(module)
    except (ServerError, secret_file.UnsafeSecret, OSError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(result.get("actions")), **result)


if __name__ == "__main__":
    main()
