"""The mode of what is made without naming one."""

from __future__ import annotations

import os


def ordinary() -> None:
    """Let others read what is installed, whatever a login is given.

    Hardening gives people a umask of 027, by PAM also to root's login over SSH. With it, a directory made on the way to
    a file, a package's configuration or a built release would be shut to the service that reads it. What is secret
    names its own mode.
    """
    os.umask(0o022)
