"""Load what every task needs before the first worker is forked."""

from __future__ import annotations

import gc
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load filters and tests once, and not again for each task
version_added: 0.1.0
description:
  - Ansible runs each task of each host in a process of its own, which has only what its parent had loaded. Filters and
    tests are loaded where a template first needs one, which is in these processes, so that each task that has a
    condition spends a twentieth of a second to load all of them again.
  - This loads those of Ansible and of this collection in the parent when a playbook begins, and takes all that is there
    by then out of the sight of the garbage collector, which would otherwise walk over it in each of these processes
    and so copy its memory.
requirements:
  - Enabled by C(callbacks_enabled = shipshape.droplet.preload) in ansible.cfg
"""


class CallbackModule(CallbackBase):
    """Prints nothing; a callback is what of a collection runs in the parent before the first task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "shipshape.droplet.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for loader in (filter_loader, test_loader):
            list(loader.all())
        # Finding one filter of a collection loads all of its files.
        filter_loader.get("shipshape.droplet.plan")
        gc.freeze()
