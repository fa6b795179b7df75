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
options:
  files:
    description: What must be there, in order. A parent directory that is not listed must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path on the host., type: path, required: true}
      state:
        description: What the path shall be. A directory is removed by V(absent) with all it holds.
        type: str
        choices: [file, directory, link, absent]
        default: file
      template: {description: Template in the role's C(templates), type: str}
      source: {description: File in the role's C(files), type: str}
      content: {description: The text itself., type: str}
      vars: {description: Further variables for the template, type: dict}
      target: {description: Where a link points., type: str}
      owner: {description: User that owns it., type: str, default: root}
      group: {description: Group that owns it., type: str, default: root}
      mode:
        description: Octal mode as a string. Default V("0644") for files and V("0755") for directories.
        type: str
      validate:
        description: Command that checks the new text before it is put in place; C(%s) is the temporary file.
        type: str
      secret: {description: Keep the text out of the diff., type: bool, default: false}
      once: {description: Create only; leave an existing file alone., type: bool, default: false}
      mark:
        description:
          - Word that marks our lines in a file that is somebody else's. The text, or with V(absent) nothing, takes the
            place of the lines that have it, or stands at the end; all else stays as it is, owner and mode as well.
        type: str
      unless_edited:
        description: Leave a package's configuration file alone that somebody has edited.
        type: bool
        default: false
      restart: {description: Unit to restart in this same trip when this entry changes., type: str}
      reload: {description: Unit to reload in this same trip when this entry changes., type: str}
  purge:
    description: Directories of ours in which files that are not listed are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      directory: {description: Absolute path., type: path, required: true}
      pattern: {description: Shell pattern of the names that are ours., type: str, default: "*"}
      reload: {description: Unit to reload in this same trip when something was removed., type: str}
  verify:
    description: Command run after everything is in place, only when something changed.
    type: str
  units:
    description:
      - systemd units to bring to their state after the files are in place, in the same trip.
      - All are looked up by one C(systemctl show); only what differs is acted on.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name with its suffix., type: str, required: true}
      state: {description: What it shall be doing., type: str, choices: [started, stopped, restarted, reloaded]}
      enabled: {description: Whether it starts at boot., type: bool}
      masked: {description: Whether it can be started at all., type: bool}
      optional: {description: Pass over a unit that is not on this host., type: bool, default: false}
  effective:
    description:
      - Commands that say what is in force, and lines each must print. Asked at every run, and not in check mode.
    type: list
    elements: dict
    default: []
    suboptions:
      command: {description: The command; it must not change anything., type: str, required: true}
      lines: {description: Lines that its output must have., type: list, elements: str, required: true}
      hint: {description: What the operator may look at when a line is missing., type: str, default: ""}
  contents:
    description: Set by the action plugin.
    type: str
    default: ""
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
from ansible_collections.shipshape.droplet.plugins.module_utils import file_set


def main() -> None:
    module = AnsibleModule(argument_spec=file_set.argument_spec(), supports_check_mode=True)
    module.exit_json(**file_set.converge(module, file_set.declared(module)))


if __name__ == "__main__":
    main()
