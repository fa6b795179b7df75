#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: host_secret
short_description: Make a random secret once on a host, and read it from there
version_added: 0.1.0
description:
  - Ensures that a file readable by root only holds a random secret and returns that secret, so that a play can hand a
    secret made on one host (a database role's password) to another (the application's).
  - Refuses to run in a task without C(no_log), because the connection would print the result at high verbosity.
  - In check mode nothing is written. When the file is missing, a secret that stands for the one to come is returned.
options:
  path:
    description:
      - Absolute path of the file. Its directory is made with mode 0700 when it is missing. This, or O(paths).
    type: path
  paths:
    description: Several such files, read in one trip, each under a name of its own.
    type: dict
  length:
    description: Letters and digits of a newly made secret.
    type: int
    default: 32
  create:
    description: Make the secret when there is none. Otherwise its absence is an error.
    type: bool
    default: true
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Database | Read the password of the application's role
  shipshape.droplet.host_secret:
    path: /etc/shipshape/postgresql/shop.password
  delegate_to: database-1
  register: __shop_password
  no_log: true
"""

RETURN = r"""
secret:
  description: The secret in O(path).
  type: str
  returned: when O(path) is given
secrets:
  description: The secrets in O(paths), under the same names.
  type: dict
  returned: when O(paths) is given
"""

from typing import Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file, umask


def secret_in(module: AnsibleModule, path: str) -> Tuple[str, bool]:
    """The secret in a file, and whether it was made just now."""
    secret: Optional[str] = secret_file.read(path)
    if secret is not None:
        return secret, False
    if not module.params["create"]:
        module.fail_json(msg=f"{path} does not exist on this host")
    made: str = secret_file.generate(module.params["length"])
    if not module.check_mode:
        secret_file.write(path, made)
    return made, True


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path"),
            paths=dict(type="dict"),
            length=dict(type="int", default=32),
            create=dict(type="bool", default=True),
        ),
        required_one_of=[("path", "paths")],
        mutually_exclusive=[("path", "paths")],
        supports_check_mode=True,
    )
    umask.ordinary()
    path, length = module.params["path"], module.params["length"]
    if not module.no_log:
        module.fail_json(msg="host_secret returns a secret: give its task `no_log: true`")
    if length < 16:
        module.fail_json(msg=f"length is {length}; a secret shorter than 16 characters can be guessed")
    named = {"": path} if path else module.params["paths"]
    try:
        found = {name: secret_in(module, each) for name, each in named.items()}
    except (secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=str(error))
    secrets = {name: secret for name, (secret, _made) in found.items()}
    changed = any(made for _secret, made in found.values())
    module.exit_json(changed=changed, **(dict(secret=secrets[""]) if path else dict(secrets=secrets)))


if __name__ == "__main__":
    main()
