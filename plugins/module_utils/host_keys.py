"""The keys by which a droplet proves to whoever logs in that it is itself, when one of them is missing or weak."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import file_entry

DIRECTORY = "/etc/ssh"
#: Bits that a key must have, and those of a new one. ed25519 has always the same; clients prefer it.
WANTED = {"ed25519": (256, 256), "rsa": (3072, 4096)}
UNKNOWN = "(a new key, made when it is needed)\n"


class Renewal(NamedTuple):
    """A key to be made anew."""

    kind: str
    path: str
    bits_before: int

    def __str__(self) -> str:
        why = f"had {self.bits_before} bits" if self.bits_before else "was missing"
        return f"make {self.path} anew ({why})"


def parse_bits(text: str) -> int:
    """The length in what `ssh-keygen -l` says (2048 SHA256:… root@droplet (RSA)); 0 when it says nothing."""
    first = text.split(" ", 1)[0]
    return int(first) if first.isdigit() else 0


def due(module: AnsibleModule, directory: str = DIRECTORY) -> List[Renewal]:
    """The keys that are missing, unreadable or weak."""
    if not module.get_bin_path("ssh-keygen"):
        return []  # check mode on a bare host: the package that has it would be here by now
    found = []
    for kind, (least, _new) in WANTED.items():
        path = f"{directory}/ssh_host_{kind}_key"
        code, out, _err = module.run_command(["ssh-keygen", "-l", "-f", path])
        bits = parse_bits(out) if code == 0 and os.path.exists(path) else 0
        if bits < least:
            found.append(Renewal(kind, path, bits))
    return found


def make(module: AnsibleModule, renewal: Renewal, directory: str) -> Tuple[str, str]:
    """(private, public) text of a new key; in check mode none is made."""
    if module.check_mode:
        return UNKNOWN, UNKNOWN
    path = os.path.join(directory, "key")
    command = ["ssh-keygen", "-q", "-t", renewal.kind, "-b", str(WANTED[renewal.kind][1]), "-N", "", "-f", path]
    module.run_command([*command, "-C", "root@" + os.uname().nodename], check_rc=True)
    texts = []
    for name in (path, path + ".pub"):
        with open(name, encoding="ascii") as stream:
            texts.append(stream.read())
        os.unlink(name)
    return texts[0], texts[1]


def files(
    module: AnsibleModule, renewals: List[Renewal], reload: Optional[str]
) -> Tuple[List[Dict[str, Any]], Dict[str, str]]:
    """Entries of a set of files with their texts: so keys are kept, put in place and put back as all others are."""
    specs: List[Dict[str, Any]] = []
    texts: Dict[str, str] = {}
    for renewal in renewals:
        with tempfile.TemporaryDirectory(prefix="shipshape-") as directory:
            private, public = make(module, renewal, directory)
        specs.append(dict(file_entry.PLAIN, path=renewal.path, mode="0600", secret=True, reload=reload))
        specs.append(dict(file_entry.PLAIN, path=renewal.path + ".pub", mode="0644"))
        texts.update({renewal.path: private, renewal.path + ".pub": public})
    return specs, texts


def notice(renewals: List[Renewal]) -> str:
    """What an operator has to know of them; empty when there is nothing."""
    replaced = [renewal for renewal in renewals if renewal.bits_before]
    if not replaced:
        return ""
    names = ", ".join(f"{renewal.path} ({renewal.bits_before} bits)" for renewal in replaced)
    stays = all(renewal.kind == "rsa" for renewal in renewals)
    return (
        f"a weak host key is replaced: {names}. "
        + ("That of type ed25519 stays, by which OpenSSH knows this host. " if stays else "")
        + "A client that knows it by the old key alone says that its identification has changed: remove the old line "
        "there with 'ssh-keygen -R', or keep the key with hardening_skip: [ssh_host_keys]"
    )
