"""A set of files, directories and links brought to its declared state as a transaction, with the units it concerns."""

from __future__ import annotations

import base64
import fnmatch
import glob
import grp
import json
import os
import pwd
import shlex
import shutil
import stat
import tempfile
import zlib
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_actions, package_files, systemd_units

#: How a text of ours begins, whatever its language takes for a comment.
OUR_MARK = b"# Written by Shipshape"
DEFAULT_MODES = {"file": "0644", "directory": "0755"}


#: What stood at a path that is a package's, from when we took it until it is given back.
ORIGINALS = "/var/lib/shipshape/originals"


def kept_at(path: str) -> str:
    """Where the original of a path is kept. A link there means that there was nothing."""
    return ORIGINALS + path


class Refused(Exception):
    """A validation refused the new text, or the system refused to write it."""


class Found:
    """What is at a path before we touch it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kind = "absent"
        self.text = ""
        self.data: Optional[bytes] = None
        self.target: Optional[str] = None
        self.mode: Optional[int] = None
        self.uid: Optional[int] = None
        self.gid: Optional[int] = None
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.mode, self.uid, self.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        if stat.S_ISLNK(info.st_mode):
            self.kind, self.target = "link", os.readlink(path)
        elif stat.S_ISDIR(info.st_mode):
            self.kind = "directory"
        else:
            self.kind = "file"
            with open(path, "rb") as handle:
                self.data = handle.read()
            self.text = self.data.decode("utf-8", "replace")

    def restore(self) -> None:
        """Put back what was found. A removed directory tree is the exception: it is only removed at the very end."""
        if self.kind == "absent":
            remove(self.path)
        elif self.kind == "directory":
            if not os.path.isdir(self.path):
                remove(self.path)
                os.mkdir(self.path)
        elif self.kind == "link":
            put_link(self.path, str(self.target))
        else:
            put_file(self.path, self.data or b"", self.mode or 0o600, self.uid or 0, self.gid or 0)
        if self.kind == "directory" and self.mode is not None:
            os.chmod(self.path, self.mode)
            os.chown(self.path, self.uid or 0, self.gid or 0)


def remove(path: str) -> None:
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def put_link(path: str, target: str) -> None:
    """Replace whatever is there by a link, atomically when it is a link or file."""
    if os.path.isdir(path) and not os.path.islink(path):
        remove(path)
    temporary = f"{path}.shipshape-{os.getpid()}"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def write_temporary(path: str, data: bytes, mode: int, uid: int, gid: int) -> str:
    handle, temporary = tempfile.mkstemp(prefix=".shipshape-", dir=os.path.dirname(path))
    with os.fdopen(handle, "wb") as stream:
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
        stream.write(data)
        stream.flush()
        os.fsync(handle)
    return temporary


def put_file(path: str, data: bytes, mode: int, uid: int, gid: int) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove(path)
    os.replace(write_temporary(path, data, mode, uid, gid), path)


class Entry:
    """One declared path with what is there now and whether they differ."""

    def __init__(self, module: AnsibleModule, spec: Dict[str, Any], content: Optional[str]) -> None:
        self.module = module
        self.path: str = spec["path"]
        self.state: str = spec["state"]
        self.spec = spec
        self.data = None if content is None else content.encode("utf-8")
        self.mode = int(spec["mode"] or DEFAULT_MODES.get(self.state, "0644"), 8)
        self.found = Found(self.path)
        self.uid = self._id(spec["owner"], pwd.getpwnam, "pw_uid", "owner")
        self.gid = self._id(spec["group"], grp.getgrnam, "gr_gid", "group")
        if spec["mark"]:
            self._own_marked_lines(spec["mark"])
        data = self.found.data
        self.is_somebodys = bool(
            spec["unless_edited"]
            and data is not None
            and not data.startswith(OUR_MARK)
            and not package_files.is_as_packaged(module, self.path, data)
        )

    def _own_marked_lines(self, mark: str) -> None:
        """The file is somebody else's, and of all that is in it only the lines with our mark are ours."""
        if self.found.kind == "absent":
            return
        if self.found.kind != "file":
            self.module.fail_json(msg=f"{self.path} is a {self.found.kind}; lines of ours go into a file only")
        ours = self.data or b"" if self.state == "file" else b""
        self.data = own_lines(self.found.data or b"", mark, ours)
        self.state, self.mode = "file", self.found.mode or 0
        self.uid, self.gid = self.found.uid, self.found.gid
        self.spec = dict(self.spec, owner=user_name(self.uid), group=group_name(self.gid))

    def _id(self, name: str, lookup: Any, field: str, what: str) -> Optional[int]:
        if self.state in ("absent", "link", "original"):
            return 0
        try:
            return int(getattr(lookup(name), field))
        except KeyError:
            if self.module.check_mode:
                return None  # the task that makes this user would have run before
            self.module.fail_json(msg=f"{self.path}: the {what} '{name}' does not exist on this host")
        return None

    @property
    def attributes_differ(self) -> bool:
        found = self.found
        return (found.mode, found.uid, found.gid) != (self.mode, self.uid, self.gid)

    @property
    def changed(self) -> bool:
        found = self.found
        if self.is_somebodys:
            return False
        if self.state == "absent":
            return found.kind != "absent"
        if self.state == "original":
            return os.path.lexists(kept_at(self.path))
        if self.state == "link":
            return found.kind != "link" or found.target != self.spec["target"]
        if self.spec["once"] and found.kind == self.state:
            return False
        if found.kind != self.state:
            return True
        if self.state == "file" and found.data != self.data:
            return True
        return self.attributes_differ

    def diff(self) -> Dict[str, Any]:
        before, after = describe(self.found), self._describe_after()
        if self.state == "original":
            before, after = before + self.found.text, after + Found(kept_at(self.path)).text
        if self.state == "file" and self.found.kind in ("file", "absent") and before == after:
            # Only the attributes stay the same: the text is what changed.
            before, after = self.found.text, (self.data or b"").decode("utf-8")
        elif self.state == "file" and self.found.data != self.data:
            before = before + self.found.text
            after = after + (self.data or b"").decode("utf-8")
        if self.spec["secret"] and self.found.data != self.data:
            before = "(%s)\n" % ("nothing" if self.found.kind == "absent" else "a secret text")
            after = "(another secret text)\n" if self.found.kind == "file" else "(a secret text)\n"
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}

    def _describe_after(self) -> str:
        if self.state == "absent":
            return "absent\n"
        if self.state == "original":
            return describe(Found(kept_at(self.path)))
        if self.state == "link":
            return "link -> {}\n".format(self.spec["target"])
        return "{} {}:{} {:04o}\n".format(self.state, self.spec["owner"], self.spec["group"], self.mode)

    def apply(self) -> None:
        if self.state == "absent":
            remove(self.path)
        elif self.state == "original":
            self._give_back()
        elif self.state == "link":
            put_link(self.path, self.spec["target"])
        elif self.state == "directory":
            if self.found.kind not in ("directory", "absent"):
                raise Refused(f"{self.path} is a {self.found.kind}, not a directory; move it away first")
            if self.found.kind == "absent":
                os.mkdir(self.path, self.mode)
            os.chown(self.path, self.uid or 0, self.gid or 0)
            os.chmod(self.path, self.mode)
        else:
            self._apply_file()

    def _keep(self) -> None:
        """Only what was there before us: a text of ours is none, not even one that somebody has edited."""
        kept = kept_at(self.path)
        if os.path.lexists(kept) or self.found.data == self.data or self.found.kind not in ("file", "absent"):
            return
        os.makedirs(ORIGINALS, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
        if self.found.kind == "absent":
            put_link(kept, "absent")
        else:
            put_file(kept, self.found.data or b"", self.found.mode or 0, self.found.uid or 0, self.found.gid or 0)

    def _give_back(self) -> None:
        kept = Found(kept_at(self.path))
        if kept.kind == "file":
            put_file(self.path, kept.data or b"", kept.mode or 0, kept.uid or 0, kept.gid or 0)
        else:
            remove(self.path)

    def _apply_file(self) -> None:
        if self.spec["foreign"]:
            self._keep()
        temporary = write_temporary(self.path, self.data or b"", self.mode, self.uid or 0, self.gid or 0)
        try:
            if self.spec["validate"]:
                run(self.module, self.spec["validate"].replace("%s", shlex.quote(temporary)), self.path)
            if os.path.isdir(self.path) and not os.path.islink(self.path):
                raise Refused(f"{self.path} is a directory, not a file; move it away first")
            os.replace(temporary, self.path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)


def own_lines(text: bytes, mark: str, ours: bytes) -> bytes:
    """The text with our lines where those with our mark stand, else at its end."""
    lines = text.splitlines(keepends=True)
    marked = [number for number, line in enumerate(lines) if mark.encode() in line]
    kept = [line for line in lines if mark.encode() not in line]
    place = marked[0] if marked else len(kept)
    if ours and place and not kept[place - 1].endswith(b"\n"):
        kept[place - 1] += b"\n"
    return b"".join([*kept[:place], ours, *kept[place:]])


def describe(found: Found) -> str:
    if found.kind == "absent":
        return "absent\n"
    if found.kind == "link":
        return f"link -> {found.target}\n"
    return f"{found.kind} {user_name(found.uid)}:{group_name(found.gid)} {found.mode or 0:04o}\n"


def user_name(uid: Optional[int]) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: Optional[int]) -> str:
    try:
        return grp.getgrgid(gid or 0).gr_name
    except KeyError:
        return str(gid)


def run(module: AnsibleModule, command: str, what: str) -> None:
    code, out, err = module.run_command(shlex.split(command))
    if code != 0:
        text = "\n".join(part.strip() for part in (out, err) if part.strip())
        raise Refused(f"{what} was refused by '{command}' (exit {code}); everything was put back as it was:\n{text}")


#: An entry that a module adds by itself, as the argument spec would have filled it in.
PLAIN: Dict[str, Any] = dict.fromkeys(("mode", "target", "validate", "restart", "reload", "mark"))
PLAIN.update(state="file", owner="root", group="root", secret=False, once=False, foreign=False, unless_edited=False)


def expand_purge(module: AnsibleModule, purge: List[Dict[str, Any]], listed: List[str]) -> List[Entry]:
    """Entries that remove what lies in our directories and is not listed any more."""
    entries = []
    for item in purge:
        try:
            names = sorted(os.listdir(item["directory"]))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = os.path.join(item["directory"], name)
            if path in listed or not fnmatch.fnmatch(name, item["pattern"]) or name.startswith(".shipshape-"):
                continue
            if item.get("begins") and not Found(path).text.startswith(item["begins"]):
                continue
            spec = dict(PLAIN, state="absent", path=path, reload=item["reload"])
            entries.append(Entry(module, spec, None))
    return entries


#: Where units of ours lie, and the kinds that end with their file. What is mounted or swapped to may be in use.
UNITS = "/etc/systemd/system"
ENDING = (".service", ".timer")


def unit_of(entry: Entry) -> str:
    """The name of the unit whose file the entry removes, or nothing."""
    directory, name = os.path.split(entry.path)
    return name if entry.state == "absent" and directory == UNITS and "." in name else ""


def enablings(module: AnsibleModule, entries: List[Entry]) -> List[Entry]:
    """Entries that remove the links by which a unit was enabled whose file is removed; systemctl no longer would."""
    found = []
    for name in filter(None, map(unit_of, entries)):
        for path in sorted(glob.glob(f"{UNITS}/*.wants/{name}") + glob.glob(f"{UNITS}/*.requires/{name}")):
            found.append(Entry(module, dict(PLAIN, state="absent", path=path), None))
    return found


def transact(module: AnsibleModule, entries: List[Entry], verify: Optional[str]) -> None:
    """Apply all, or put everything back and say what refused."""
    done: List[Entry] = []
    # A tree cannot be put back from memory, so trees go only after the last check has passed.
    trees = [entry for entry in entries if entry.state == "absent" and entry.found.kind == "directory"]
    try:
        for entry in entries:
            if entry not in trees:
                done.append(entry)
                entry.apply()
        if verify:
            run(module, verify, "The new configuration")
    except (Refused, OSError) as error:
        for entry in reversed(done):
            entry.found.restore()
        module.fail_json(msg=str(error), changed_files=[])
    for entry in trees:
        entry.apply()
    for entry in entries:
        if entry.state == "original":
            remove(kept_at(entry.path))


def argument_spec() -> Dict[str, Any]:
    """What a module takes that applies a set of files."""
    return dict(
        files=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                path=dict(type="path", required=True),
                state=dict(type="str", choices=["file", "directory", "link", "absent", "original"], default="file"),
                target=dict(type="str"),
                owner=dict(type="str", default="root"),
                group=dict(type="str", default="root"),
                mode=dict(type="str"),
                validate=dict(type="str"),
                secret=dict(type="bool", default=False, no_log=False),
                once=dict(type="bool", default=False),
                mark=dict(type="str"),
                unless_edited=dict(type="bool", default=False),
                foreign=dict(type="bool", default=False),
                restart=dict(type="str"),
                reload=dict(type="str"),
            ),
        ),
        effective=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                command=dict(type="str", required=True),
                lines=dict(type="list", elements="str", required=True),
                hint=dict(type="str", default=""),
                repair=dict(type="str"),
            ),
        ),
        purge=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                directory=dict(type="path", required=True),
                pattern=dict(type="str", default="*"),
                begins=dict(type="str"),
                reload=dict(type="str"),
            ),
        ),
        verify=dict(type="str"),
        units=dict(default=[], **systemd_units.OPTIONS),
        contents=dict(type="str", default="", no_log=True),
    )


def due_units(module: AnsibleModule, entries: List[Entry], owed: List[str]) -> List[Dict[str, Any]]:
    """Units to restart or reload: of what changes now, and of what an earlier run has changed and not seen through."""
    due: Dict[Tuple[str, str], bool] = {}
    # A directory in which nothing is purged today may have been purged by a run that was cut off.
    watched = [(item["reload"], "reload", False) for item in module.params["purge"] if item["reload"]]
    watched += [
        (entry.spec[verb], verb, entry.changed)
        for entry in entries
        for verb in ("restart", "reload")
        if entry.spec[verb]
    ]
    for unit, verb, changed in watched:
        if changed or f"{verb} {unit}" in owed:
            due[verb, unit] = True
    return [dict(name=unit, state=verb + "ed", enabled=None, masked=None, optional=False) for verb, unit in due]


def lacking(module: AnsibleModule, expectation: Dict[str, Any]) -> str:
    """What a command does not say of what was declared, or nothing."""
    code, out, err = module.run_command(shlex.split(expectation["command"]))
    missing = [line for line in expectation["lines"] if line not in out.splitlines()]
    return (err.strip() or f"exit {code}") if code != 0 else ", ".join(f"missing: {line}" for line in missing)


def repair(module: AnsibleModule, expectations: List[Dict[str, Any]]) -> List[str]:
    """Reload the units that bring into force again what somebody has undone behind our back."""
    due = []
    for expectation in expectations:
        unit = expectation["repair"]
        if not unit or not module.get_bin_path(shlex.split(expectation["command"])[0]):
            continue  # without the program: check mode on a bare host
        if lacking(module, expectation) and unit not in due:
            due.append(unit)
    units = [dict(name=unit, state="reloaded", enabled=None, masked=None, optional=True) for unit in due]
    actions: List[str] = systemd_units.converge(module, units)
    return actions


def assert_effective(module: AnsibleModule, expectations: List[Dict[str, Any]]) -> None:
    """Fail when a command does not say that what was declared is in force."""
    for expectation in expectations:
        found = lacking(module, expectation)
        if found:
            module.fail_json(
                msg="What '{}' says is not what was declared: {}. {}".format(
                    expectation["command"], found, expectation["hint"]
                ).strip()
            )


def unpack(contents: str) -> Dict[str, str]:
    """The texts of the files by path, as the action plugin packs them into one argument."""
    return dict(json.loads(zlib.decompress(base64.b64decode(contents)).decode())) if contents else {}


def declared(module: AnsibleModule) -> List[Entry]:
    """The entries that the task names, and the removal of what it does not name any more."""
    contents = unpack(module.params["contents"])
    entries = [Entry(module, spec, contents.get(spec["path"])) for spec in module.params["files"]]
    return entries + expand_purge(module, module.params["purge"], [entry.path for entry in entries])


def converge(module: AnsibleModule, entries: List[Entry]) -> Dict[str, Any]:
    """Apply what differs, restart what it concerns, bring the units to their state; what a module returns of it."""
    entries = entries + enablings(module, entries)
    changes = [entry for entry in entries if entry.changed]
    owed = owed_actions.owed()
    due = due_units(module, entries, owed)
    debts = ["{} {}".format(unit["state"][:-2], unit["name"]) for unit in due]
    if changes and not module.check_mode:
        transact(module, changes, module.params["verify"])
        owed_actions.remember(debts)
    # Units may still run whose file is gone, or goes now.
    actions = systemd_units.end(module, [name for name in map(unit_of, entries) if name.endswith(ENDING)])
    actions += systemd_units.converge(module, due + module.params["units"])
    repairs = repair(module, module.params["effective"])
    actions += [action for action in repairs if action not in actions]
    if not module.check_mode:
        owed_actions.settle(debts)
        assert_effective(module, module.params["effective"])
    result: Dict[str, Any] = dict(
        changed=bool(changes or actions),
        changed_files=[entry.path for entry in changes],
        actions=actions,
        interrupted=[debt for debt in debts if debt in owed],
    )
    if module._diff:
        result["diff"] = [entry.diff() for entry in changes] + ([systemd_units.diff(actions)] if actions else [])
    return result
