#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Compare what is in force on a droplet with what is declared, and probe its ports
version_added: 0.1.0
description:
  - Reads the running system in one trip with M(shipshape.droplet.droplet_state), then connects from the controller to
    all 65535 TCP ports and asks the common UDP services.
  - Fails with all findings in one list, each with what was found, what was declared and what to do. Changes nothing.
author: Shipshape (@shipshape)
options:
  rules:
    description: The ports that the firewall shall let in, each with C(name), C(port), C(protocol) and C(sources).
    type: list
    elements: dict
    default: []
  listens:
    description: What the services listen on, each as a rule with C(addresses).
    type: list
    elements: dict
    default: []
  bound:
    description: Addresses of a service by its name where they are more than C(listens) says.
    type: dict
    default: {}
  published:
    description: Ports of containers that the outside may reach. Without it, no chain of Docker's is looked for.
    type: list
    elements: dict
  admins: {description: Users who may become root., type: list, elements: str, default: []}
  sshd: {description: Lines that C(sshd -T) must print., type: list, elements: str, default: []}
  sysctl: {description: Kernel settings by name., type: dict, default: {}}
  unattended_upgrades: {description: Whether security updates are installed every day., type: bool, default: true}
  sites:
    description: Sites with a certificate, each with C(domains), C(certificate) and C(self_signed).
    type: list
    elements: dict
    default: []
  postgresql:
    description: >-
      What PostgreSQL shall do, C(version), C(settings) by name, C(roles), and C(replication) as the role has it.
      Without it, it is not asked.
    type: dict
  address:
    description: The droplet's name or address as the controller reaches it. Empty probes nothing.
    type: str
    default: ""
attributes:
  check_mode:
    description: Is the same in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Verify | Compare what is in force with what is declared
  shipshape.droplet.verify:
    rules: [{name: ssh, port: 22}]
    sshd: [permitrootlogin no]
    address: "{{ ansible_host }}"
"""

RETURN = r"""
msg:
  description: All findings in a numbered list, or that there are none, and what the probe found open.
  type: str
  returned: always
"""

# An action plugin of this name does the work; this file carries its documentation.
