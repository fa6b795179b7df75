#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inventory
short_description: Find everything wrong with the inventory before anything connects
version_added: 0.1.0
description:
  - Reads the variables of all hosts in the play and in the groups C(proxy), C(app) and C(database), and compares
    C(apps), the globals and the variables with a role's prefix with what Shipshape knows.
  - Fails with all problems in one list, each with its path in the inventory, what was found and what would do.
  - Runs on the controller, once, and connects to no host.
  - Put it into a play of its own with C(gather_facts) off, before all others.
  - Never shows the value of a secret.
author: Shipshape (@shipshape)
attributes:
  check_mode:
    description: Is the same in check mode.
    support: full
options: {}
"""

EXAMPLES = r"""
- name: Validate the inventory
  hosts: all
  gather_facts: false
  tasks:
    - name: Inventory | Validate everything
      shipshape.droplet.validate_inventory:
"""

RETURN = r"""
msg:
  description: All problems, or that there are none.
  type: str
  returned: always
"""

# An action plugin of this name does the work on the controller; this file carries its documentation.
