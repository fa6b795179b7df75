#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Bring a set of files, directories and links to their declared state in one trip
version_added: 0.1.0
description:
  - Renders templates on the controller (action plugin) and applies all entries in one module call, as a transaction.
  - When a O(files[].validate) command or the final O(verify) command refuses, every entry is put back as it was
    and the task fails with the command's output.
  - What a change restarts or reloads is done in the same trip. What was not (the run was cut off, the unit failed) is
    remembered on the host until the next boot and done by the next run, whether or not it changes anything itself.
extends_documentation_fragment: [shipshape.droplet.file_set]
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Files | Configure
  shipshape.droplet.files:
    files:
      - {path: /etc/nginx/shipshape.d, state: directory}
      - {path: /etc/nginx/shipshape.d/shop.conf, template: site.conf.j2, reload: nginx.service}
    purge:
      - {directory: /etc/nginx/shipshape.d, pattern: "*.conf", reload: nginx.service}
    verify: nginx -t
    units:
      - {name: nginx.service, enabled: true, state: started}
"""

RETURN = r"""
changed_files:
  description: The paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: always
actions:
  description: What was (or in check mode would be) done to units, such as C(start nginx.service).
  type: list
  elements: str
  returned: always
interrupted:
  description: Restarts and reloads that an earlier run still owed, such as C(reload nginx.service).
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import file_set, umask


def main() -> None:
    module = AnsibleModule(argument_spec=file_set.argument_spec(), supports_check_mode=True)
    umask.ordinary()
    module.exit_json(**file_set.converge(module, file_set.declared(module)))


if __name__ == "__main__":
    main()
