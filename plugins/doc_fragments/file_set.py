# MIT License
"""Documentation that the modules share which apply a set of files."""

from __future__ import annotations


class ModuleDocFragment:
    """What file_set.argument_spec takes; templates are rendered by the action plugin."""

    DOCUMENTATION = r"""
options:
  files:
    description: What must be there, in order. A parent directory that is not listed must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path on the host., type: path, required: true}
      state:
        description:
          - What the path shall be. A directory is removed by V(absent) with all it holds, and a unit in
            C(/etc/systemd/system) with the links that enable it; a service or timer is stopped.
        type: str
        choices: [file, directory, link, absent, original]
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
      foreign:
        description:
          - The file is a package's. What is there is kept before it is replaced for the first time, and
            O(files[].state=original) puts it back; without anything kept, that does nothing.
        type: bool
        default: false
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
      begins: {description: "In a directory of others, how the text of a file of ours begins.", type: str}
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
      repair:
        description:
          - Unit that is reloaded when a line is missing, before it is asked for once more. Check mode asks, too, then.
        type: str
  contents:
    description: Set by the action plugin.
    type: str
    default: ""
"""
