"""One file, directory or link: what is there, what is declared, and the way from the one to the other and back."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import stat
import tempfile
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import package_files

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
