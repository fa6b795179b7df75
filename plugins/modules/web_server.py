#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: web_server
short_description: Configure a web server and start it, with a self-signed certificate where there is none yet
version_added: 0.1.0
description:
  - Makes the certificates that are missing, then applies the files and units as M(shipshape.droplet.files) does, all
    in one trip.
  - A web server does not start with a certificate missing, and an authority does not issue one before the server
    answers. A self-signed one takes the place until then. For a site on a bare address it is the certificate for good.
  - A certificate or key that this module did not make is never written over. One that it made is renewed near its end
    or when its names change. An existing key is kept.
  - The pair is put into C(<directory>.self-signed), and its directory becomes a link to it, when that directory does
    not exist yet. Certificate and key so appear at once, and another pair takes their place by the change of one link.
extends_documentation_fragment: [shipshape.droplet.file_set]
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
  unit:
    description: The web server's unit, reloaded when a certificate was made. One of O(units) or of the files' own.
    type: str
    required: true
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Server | Configure and start
  shipshape.droplet.web_server:
    unit: nginx.service
    certificates:
      - certificate: /etc/shipshape/tls/shop/fullchain.pem
        key: /etc/shipshape/tls/shop/privkey.pem
        names: [shop.example.com, 203.0.113.7]
    files:
      - {path: /etc/nginx/shipshape.d/shop.conf, template: site.conf.j2, reload: nginx.service}
    verify: nginx -t
    units:
      - {name: nginx.service, enabled: true, state: started}
"""

RETURN = r"""
changed_files:
  description: The paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: success
actions:
  description: What was (or in check mode would be) done to units.
  type: list
  elements: str
  returned: success
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

from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import certificates as tls
from ansible_collections.shipshape.droplet.plugins.module_utils import file_set, owed_actions, self_signed, umask


def describe(spec: Dict[str, Any], found: Optional[tls.Certificate]) -> Dict[str, Any]:
    return {
        "certificate": spec["certificate"],
        "names": found.names if found else sorted(tls.normal_name(name) for name in spec["names"]),
        "expires": tls.iso(found.expires) if found else "",
        "self_signed": found.ours if found else True,
    }


def diff(spec: Dict[str, Any], found: Optional[tls.Certificate]) -> Dict[str, str]:
    before = "none\n"
    if found is not None:
        before = "self-signed for {} until {}\n".format(", ".join(found.names), tls.iso(found.expires))
    after = "self-signed for {}\n".format(", ".join(spec["names"]))
    header = spec["certificate"]
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def make_missing(module: AnsibleModule) -> Dict[str, List[Any]]:
    """What was made and why, its diffs, and every certificate as it is now."""
    result: Dict[str, List[Any]] = {"made": [], "diff": [], "certificates": []}
    for spec in module.params["certificates"]:
        found = tls.read(module, spec["certificate"])
        why = self_signed.reason(spec, found, module.params["renew_days"])
        if why:
            result["diff"].append(diff(spec, found))
            result["made"].append("{}: {}".format(spec["certificate"], why))
            if not module.check_mode:
                try:
                    self_signed.make(module, spec, module.params["days"])
                except (OSError, ValueError) as error:
                    module.fail_json(msg="The certificate {} could not be made: {}".format(spec["certificate"], error))
                found = tls.read(module, spec["certificate"])
        result["certificates"].append(describe(spec, found))
    return result


def main() -> None:
    options = file_set.argument_spec()
    options.update(
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
        unit=dict(type="str", required=True),
    )
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    umask.ordinary()
    certificates = make_missing(module)
    if certificates["made"] and not module.check_mode:
        # Noted before it is done: a run cut off here is made good by the next, which finds all certificates in place.
        owed_actions.remember(["reload {}".format(module.params["unit"])])
    result = file_set.converge(module, file_set.declared(module))
    result["changed"] = result["changed"] or bool(certificates["made"])
    if module._diff:
        result["diff"] = certificates["diff"] + result["diff"]
    module.exit_json(**result, made=certificates["made"], certificates=certificates["certificates"])


if __name__ == "__main__":
    main()
