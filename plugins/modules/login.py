# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: login
short_description: Find the user and port by which a droplet lets the operator in
version_added: 0.1.0
description:
  - Tries each port and user in turn and returns the first that works, so that the same command runs against a droplet
    that knows only C(root) and against one whose C(root) login is closed.
  - Prefers who becomes root without a password; somebody who does not is taken only when nobody else gets in.
  - Has the host take back a change to the way in that its run has not lived to confirm (M(shipshape.droplet.way_in)),
    unless in check mode, so that it is not taken back in the middle of this run.
  - Waits while the host does not answer at all; stops at once when it answers and refuses everybody.
  - Runs wholly in its action plugin. Over a connection that is not ssh it returns the connection's own user.
options:
  users: {description: Users to try, the wanted one first., type: list, elements: str, required: true}
  ports: {description: Ports to try. Left out, the port of the connection., type: list, elements: int}
  required:
    description:
      - Whether it is an error when nobody gets in. Otherwise RV(user) is null then, and a host that does not answer is
        asked once, for five seconds.
    type: bool
    default: true
  others:
    description: Other hosts that are asked, over connections of their own, who is the primary; they need not answer.
    type: list
    elements: str
    default: []
  timeout: {description: Seconds to wait for a host that does not answer., type: int, default: 90}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Login | Find the way in
  shipshape.droplet.login:
    users: [deploy, root]
  register: __login
"""

RETURN = r"""
user: {description: The user that works., type: str, returned: success}
port: {description: The port that works., type: int, returned: success}
environment:
  description: The environment the host belongs to, as C(/etc/shipshape/environment) says; empty when it says none.
  type: str
  returned: success
primary:
  description:
    - Which host has the databases and how often that was changed, as a database host has noted it; empty when it has
      not. Null when it could not be read, as by a user who needs a password for sudo.
  type: str
  returned: success
services:
  description: The configuration files of PgBouncer and of instances of Redis that an earlier run has set up, by spaces.
  type: str
  returned: success
  sample: /etc/pgbouncer/shipshape.ini /etc/redis/redis-cache.conf
others:
  description: The same as RV(primary) of each of O(others); null of one that does not let us in.
  type: dict
  returned: success
ansible_facts:
  description:
    - All that the roles read, named as by M(ansible.builtin.setup), C(memtotal_mb), C(processor_vcpus),
      C(distribution), C(distribution_version), C(distribution_major_version), C(distribution_release),
      C(virtualization_type), C(virtualization_role), of C(mounts) the root file system, of C(default_ipv4) and
      C(default_ipv6) C(address), C(interface) and C(gateway), of C(dns) the C(nameservers).
    - C(data_disk.rotational) is what the kernel takes the disk of C(/var/lib) for, C(0), C(1), or empty.
    - Empty when one of them could not be read.
  type: dict
  returned: success over ssh
tried: {description: What was tried before and why it failed., type: list, elements: str, returned: success}
"""
