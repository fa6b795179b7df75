#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_import
short_description: Bring a tarball of an old host into a shared folder of an app
version_added: 0.1.0
description:
  - Sees that the tarball is whole before anything is unpacked; unpacks it as the app's user beside the folder, and
    moves it there once all of it is there. A tarball that is cut off, or would write elsewhere, leaves nothing behind.
  - A folder with files in it is refused, unless O(replace); then the former files are kept beside it. The same tarball
    once more is no change.
options:
  app: {description: Name of the app., type: str, required: true}
  user: {description: The app's user., type: str, required: true}
  folder: {description: The shared folder., type: str, required: true}
  path: {description: The tarball on the host., type: path, required: true}
  name: {description: What the operator calls it., type: str, required: true}
  look: {description: "Only see that it is whole, wherever it is.", type: bool, default: false}
  replace: {description: Whether it takes the place of files that are there., type: bool, default: false}
  remove: {description: Remove the tarball in any case., type: bool, default: false}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Import | Bring the old host's photos in
  shipshape.droplet.app_import:
    {app: shop, user: shop, folder: uploads, path: /var/lib/shipshape/shop.tar.gz, name: photos.tar.gz}
"""

RETURN = r"""
summary: {description: "What was imported, where to and in how long.", type: str, returned: success}
"""

import datetime
import os
import time
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_disk, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.app_ground import state_directory
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import Account
from ansible_collections.shipshape.droplet.plugins.module_utils.app_tarball import Contents, Place, Unusable, look


def as_account(account: Account, work: Callable[[], None]) -> None:
    """Do it in a child that is the app's user for good: what the app has put into its folder leads root nowhere."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        problem = ""
        try:
            os.initgroups(account.name, account.gid)
            os.setgid(account.gid)
            os.setuid(account.uid)
            os.umask(0o027)
            work()
        except BaseException as error:
            problem = str(error) or type(error).__name__
        os.write(writer, problem.encode()[:60000])
        os._exit(1 if problem else 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        problem = stream.read().decode("utf-8", "replace")
    if os.waitpid(child, 0)[1] != 0:
        raise Unusable(problem or "it was interrupted")


def put(given: dict[str, Any], contents: Contents, check_mode: bool) -> dict[str, Any]:
    account, started = Account(given["user"]), time.monotonic()
    place = Place(state_directory(given["app"]), given["folder"])
    if not account.exists or not os.path.isdir(place.state):
        raise Unusable(f"app {given['app']} has no shared folder on this host yet: run site.yml first")
    if os.path.exists(place.whole) and not check_mode:
        as_account(account, place.finish)  # of a run that was cut off
    there, name = place.has(), given["name"]
    if there and not given["replace"]:
        if place.imported() == contents.digest:
            return {"changed": False, "summary": f"{name} was imported into {place.target} already"}
        raise Unusable(
            f"{place.target} has {there} files, and nothing is written over them. -e replace=true keeps them beside it"
        )
    free = app_disk.room(place.state).free
    if contents.size + app_disk.LITTLE > free:
        have = f"{free // app_disk.MEGABYTE} MB are free for {place.state}"
        raise Unusable(f"it unpacks to {contents.size // app_disk.MEGABYTE} MB, and {have}. Make room first")
    said = f"{len(contents.files)} files, {contents.size} bytes"
    if check_mode:
        return {"changed": True, "summary": f"{name} would be unpacked to {place.target}: {said}"}
    now = datetime.datetime.now(datetime.timezone.utc)
    kept = f"{given['folder'].replace('/', '-')}_before_{now:%Y%m%d%H%M%S}" if place.entries(place.target) else ""
    with open(given["path"], "rb") as handle:
        as_account(account, lambda: place.unpack(handle, contents, kept))
    as_account(account, place.finish)
    end = f". What was there is in {place.state}/{kept} now" if kept else ""
    seconds = time.monotonic() - started
    return {"changed": True, "summary": f"{name} is now in {place.target}: {said}, in {seconds:.1f} s{end}"}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="str", required=True),
            user=dict(type="str", required=True),
            folder=dict(type="str", required=True),
            path=dict(type="path", required=True),
            name=dict(type="str", required=True),
            look=dict(type="bool", default=False),
            replace=dict(type="bool", default=False),
            remove=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    given, result = module.params, {"changed": False, "summary": ""}
    try:
        contents = look(given["path"], given["folder"])
        if not given["look"]:
            result = put(given, contents, module.check_mode)
    except (Unusable, OSError) as error:
        module.fail_json(msg=f"{given['name']} was not imported, and nothing was changed: {error}")
    finally:
        if given["remove"] and not module.check_mode and os.path.exists(given["path"]):
            os.remove(given["path"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
