"""What the modules that handle certificates need to know of one, read by the openssl program.

Python's standard library cannot read a certificate from a file, and python3-cryptography is not on every droplet;
openssl is, since ca-certificates depends on it.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from typing import List, Optional

from ansible.module_utils.basic import AnsibleModule

#: The organisation in every certificate that we sign ourselves, by which we know it again.
OURS = "Shipshape self-signed"


class Certificate:
    """The first certificate of a PEM file."""

    def __init__(self, subject: str, names: List[str], starts: float, expires: float) -> None:
        self.subject = subject
        self.names = names
        self.starts = starts
        self.expires = expires

    @property
    def ours(self) -> bool:
        return OURS in self.subject

    @property
    def remaining(self) -> float:
        """Seconds it is still valid; negative when it has expired."""
        return self.expires - time.time()


def normal_name(name: str) -> str:
    """A name in the one spelling in which two can be compared."""
    try:
        return ipaddress.ip_address(name.strip("[]")).compressed
    except ValueError:
        return name.strip().lower().rstrip(".")


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def parse(text: str) -> Certificate:
    """A certificate from the output of ``openssl x509 -noout -subject -dates -ext subjectAltName``."""
    fields = dict(
        line.split("=", 1) for line in text.splitlines() if line.startswith(("subject", "notBefore", "notAfter"))
    )
    names = []
    for line in text.splitlines():
        for part in line.strip().split(", "):
            kind, _colon, value = part.partition(":")
            if kind in ("DNS", "IP Address"):
                names.append(normal_name(value))
    return Certificate(
        subject=fields.get("subject", "").strip(),
        names=sorted(names),
        starts=float(ssl.cert_time_to_seconds(fields["notBefore"])),
        expires=float(ssl.cert_time_to_seconds(fields["notAfter"])),
    )


def read(module: AnsibleModule, path: str) -> Optional[Certificate]:
    """The certificate at a path; None when there is none, a failure when it is something else."""
    if not os.path.exists(path):
        return None
    code, out, err = module.run_command(
        [openssl(module), "x509", "-in", path, "-noout", "-subject", "-dates", "-ext", "subjectAltName"]
    )
    if code != 0 or "notAfter" not in out:
        module.fail_json(
            msg="{} is there, but it is no certificate ({}). Nothing was changed; "
            "move it away, or put a PEM certificate there.".format(
                path, err.strip().splitlines()[0] if err.strip() else "openssl could not read it"
            )
        )
    return parse(out)


def parse_pem(module: AnsibleModule, text: str) -> Optional[Certificate]:
    """The first certificate of a PEM text; None when it is none."""
    command = [openssl(module), "x509", "-noout", "-subject", "-dates", "-ext", "subjectAltName"]
    code, out, _err = module.run_command(command, data=text)
    return parse(out) if code == 0 and "notAfter" in out else None


def is_for(certificate: Certificate, name: str) -> bool:
    """Whether a certificate is for a name, by itself or by a wildcard."""
    wanted = normal_name(name)
    return wanted in certificate.names or "*." + wanted.partition(".")[2] in certificate.names


def openssl(module: AnsibleModule) -> str:
    program = module.get_bin_path("openssl")
    if not program:
        module.fail_json(msg="The program openssl is not on this host; install the package openssl.")
    return str(program)


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
