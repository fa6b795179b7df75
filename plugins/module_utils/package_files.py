"""Whether a configuration file is as its package brought it, or somebody has edited it."""

from __future__ import annotations

import hashlib
from typing import Iterator, Tuple

from ansible.module_utils.basic import AnsibleModule

UCF_HASHES = "/var/lib/ucf/hashfile"


def conffiles(listing: str) -> Iterator[Tuple[str, str]]:
    """(path, MD5) of the lines ` /etc/bash.bashrc 8926…` that dpkg-query prints; an obsolete one has a word more."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].startswith("/"):
            yield words[0], words[1]


def ucf_files(listing: str) -> Iterator[Tuple[str, str]]:
    """(path, MD5) of the lines `e6fd…  /etc/ssh/sshd_config` of ucf, which sees to files that packages write."""
    for line in listing.splitlines():
        md5, _spaces, path = line.partition("  ")
        if path:
            yield path.strip(), md5


def is_as_packaged(module: AnsibleModule, path: str, data: bytes) -> bool:
    """Whether a file with that content is what the installed package has written there."""
    _code, listing, _err = module.run_command(["dpkg-query", "--show", "--showformat=${Conffiles}\n"])
    known = list(conffiles(listing))
    try:
        with open(UCF_HASHES, encoding="utf-8") as stream:
            known += ucf_files(stream.read())
    except OSError:
        pass
    return (path, hashlib.md5(data).hexdigest()) in known
