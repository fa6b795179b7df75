#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed
short_description: Make self-signed certificates where there is none, all in one trip
version_added: 0.1.0
description:
  - A web server does not start with a certificate missing, and an authority does not issue one before the server
    answers. A self-signed one takes the place until then. For a site on a bare address it is the certificate for good.
  - A certificate or key that this module did not make is never written over. One that it made is renewed near its end
    or when its names change. An existing key is kept.
  - The pair is put into C(<directory>.self-signed), and its directory becomes a link to it, when that directory does
    not exist yet. Certificate and key so appear at once, and another pair takes their place by the change of one link.
options:
  certificates:
    description: The certificates that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      certificate: {description: Path of the certificate., type: path, required: true}
      key: {description: Path of its private key., type: path, required: true}
      names: {description: Host names and addresses that it is for., type: list, elements: str, required: true}
  days:
    description: How long a new one is valid. Apple's systems refuse more than 825 days.
    type: int
    default: 825
  renew_days:
    description: One that ends within so many days is renewed.
    type: int
    default: 60
  reload:
    description:
      - Unit that shows them. It is noted that it is owed a reload, which the next task of M(shipshape.droplet.files)
        does that names this unit.
    type: str
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Certificates | Put a self-signed one where there is none yet
  shipshape.droplet.self_signed:
    certificates:
      - certificate: /etc/shipshape/tls/shop/fullchain.pem
        key: /etc/shipshape/tls/shop/privkey.pem
        names: [shop.example.com, 203.0.113.7]
"""

RETURN = r"""
made:
  description: Certificates that were (or in check mode would be) made.
  type: list
  elements: str
  returned: always
certificates:
  description: Every certificate asked for, as it is now.
  type: list
  elements: dict
  returned: always
  contains:
    certificate: {description: Its path., type: str}
    names: {description: The names it is for., type: list, elements: str}
    expires: {description: When it ends. Empty for one that check mode would make., type: str}
    self_signed: {description: Whether this module made it., type: bool}
"""

import os
import tempfile
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import certificates as tls
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_actions

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


def make(module: AnsibleModule, spec: Dict[str, Any]) -> None:
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
    make_certificate(module, certificate, key, spec["names"], module.params["days"])
    if linked:
        temporary = directory + ".shipshape"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.basename(home), temporary)
        os.replace(temporary, directory)


def describe(spec: Dict[str, Any], found: Optional[tls.Certificate]) -> Dict[str, Any]:
    return {
        "certificate": spec["certificate"],
        "names": found.names if found else sorted(tls.normal_name(name) for name in spec["names"]),
        "expires": tls.iso(found.expires) if found else "",
        "self_signed": found.ours if found else True,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            certificates=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    certificate=dict(type="path", required=True),
                    key=dict(type="path", required=True, no_log=False),
                    names=dict(type="list", elements="str", required=True),
                ),
            ),
            days=dict(type="int", default=825),
            renew_days=dict(type="int", default=60),
            reload=dict(type="str"),
        ),
        supports_check_mode=True,
    )
    made, diff, result = [], [], []
    for spec in module.params["certificates"]:
        found = tls.read(module, spec["certificate"])
        why = reason(spec, found, module.params["renew_days"])
        if why:
            before = (
                "none\n"
                if found is None
                else "self-signed for {} until {}\n".format(", ".join(found.names), tls.iso(found.expires))
            )
            after = "self-signed for {}\n".format(", ".join(spec["names"]))
            diff.append(
                {
                    "before_header": spec["certificate"],
                    "after_header": spec["certificate"],
                    "before": before,
                    "after": after,
                }
            )
            made.append("{}: {}".format(spec["certificate"], why))
            if not module.check_mode:
                try:
                    make(module, spec)
                except (OSError, ValueError) as error:
                    module.fail_json(msg="The certificate {} could not be made: {}".format(spec["certificate"], error))
                found = tls.read(module, spec["certificate"])
        result.append(describe(spec, found))
    if made and module.params["reload"] and not module.check_mode:
        owed_actions.remember(["reload {}".format(module.params["reload"])])
    module.exit_json(changed=bool(made), made=made, certificates=result, diff=diff)


if __name__ == "__main__":
    main()
