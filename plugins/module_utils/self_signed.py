"""Self-signed certificates: no web server starts with one missing, and no authority issues one before it answers."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import certificates as tls

CONFIGURATION = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
O = {organisation}
CN = {common_name}
[extensions]
subjectAltName = {names}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
"""


def reason(spec: Dict[str, Any], found: Optional[tls.Certificate], renew_days: int) -> str:
    """Why a certificate must be made; empty when what is there shall stay."""
    if found is None:
        return "there is none"
    if not found.ours:
        return ""
    if not os.path.exists(spec["key"]):
        return "its key is missing"
    if found.remaining < renew_days * 86400:
        return f"it ends on {tls.iso(found.expires)}"
    if found.names != sorted({tls.normal_name(name) for name in spec["names"]}):
        return "it is for {}".format(", ".join(found.names))
    return ""


def configuration(names: List[str]) -> str:
    """The request's configuration for openssl."""
    for name in names:
        if not name or not all(character.isalnum() or character in "-._*:" for character in name.strip("[]")):
            raise ValueError(f"'{name}' is neither a host name nor an address")
    alternatives = ["{}:{}".format("IP" if tls.is_address(name) else "DNS", tls.normal_name(name)) for name in names]
    # A common name has room for 64 characters, a host name may have 253; clients read only the alternative names.
    return CONFIGURATION.format(organisation=tls.OURS, common_name=names[0][:64], names=", ".join(alternatives))


def make_key(module: AnsibleModule, path: str) -> None:
    temporary = path + ".shipshape"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.close(handle)
    module.run_command(
        [tls.openssl(module), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", temporary],
        check_rc=True,
    )
    os.chmod(temporary, 0o600)
    os.replace(temporary, path)


def make_certificate(module: AnsibleModule, path: str, key: str, names: List[str], days: int) -> None:
    temporary = path + ".shipshape"
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write(configuration(names))
        config.flush()
        module.run_command(
            [tls.openssl(module), "req", "-new", "-x509", "-sha256", "-key", key, "-days", str(days)]
            + ["-config", config.name, "-out", temporary],
            check_rc=True,
        )
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def make(module: AnsibleModule, spec: Dict[str, Any], days: int) -> None:
    """Put the pair in place, at once."""
    directory = os.path.dirname(spec["certificate"])
    # isdir follows links: one into a directory that is gone (a deleted certificate) is made anew like a missing one.
    linked = directory == os.path.dirname(spec["key"]) and not os.path.isdir(directory)
    home = directory + ".self-signed" if linked else directory
    certificate = os.path.join(home, os.path.basename(spec["certificate"]))
    key = os.path.join(home if linked else os.path.dirname(spec["key"]), os.path.basename(spec["key"]))
    for folder in (os.path.dirname(home), home, os.path.dirname(key)):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    if not os.path.exists(key):
        make_key(module, key)
    make_certificate(module, certificate, key, spec["names"], days)
    if linked:
        temporary = directory + ".shipshape"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.basename(home), temporary)
        os.replace(temporary, directory)
