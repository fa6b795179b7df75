#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: traefik_certificates
short_description: See that Traefik gets the certificates that it asks for by itself
version_added: 0.1.0
description:
  - Traefik asks an authority as soon as it sees a site. When that refuses, it shows a certificate of its own making or
    none, and says why in its log alone.
  - Before Traefik is configured, the names are looked at for which it has no certificate yet. One that leads elsewhere
    is an obstacle, to be kept from Traefik, so that it does not count against the authority's rate limit.
  - With O(dns_provider) its API is asked in place of that, at each run, whether it takes the token and has the zones.
  - With O(wait), waits until Traefik shows the certificates that were missing. Fails with Traefik's own reason when it
    cannot get one, and with the obstacles, those at the next renewal among them.
  - Says what Traefik has to be told of how long they last. By itself it renews those of hours too late.
options:
  sites:
    description: The sites whose certificates Traefik gets by itself.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the site, type: str, required: true}
      domains: {description: Its names, type: list, elements: str, required: true}
  storage: {description: File in which Traefik keeps its certificates, type: path, required: true}
  webroot: {description: Directory from which the web server answers challenges of ours, type: path, required: true}
  preflight: {description: Whether to try each name before Traefik asks for it, type: bool, default: true}
  dns_provider:
    description: Who has the zones in which names are proven. Empty for proofs over HTTP.
    type: str
    choices: ["", digitalocean]
    default: ""
  dns_token: {description: Token for the provider's API, type: str, default: ""}
  wait: {description: Whether Traefik is configured by now, type: bool, default: false}
  missing: {description: The sites without a certificate, as found before, type: list, elements: str, default: []}
  obstacles: {description: Why some of them are kept from Traefik, as found before, type: dict, default: {}}
  unrenewable: {description: Why others cannot have theirs renewed, as found before, type: dict, default: {}}
  since: {description: Time from which on Traefik's log is read, as found before, type: int, default: 0}
  again: {description: Whether Traefik has to be made to ask since nothing has changed, type: bool, default: false}
  seconds: {description: How long to wait, type: int, default: 60}
  unit: {description: Traefik's unit, type: str, default: traefik.service}
  watched: {description: The directory that Traefik watches, type: path, default: /etc/traefik/dynamic}
  port: {description: Port of 127.0.0.1 on which it shows certificates, type: int, default: 443}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Certificates | Try the names for which Traefik has none yet
  shipshape.droplet.traefik_certificates:
    sites: [{name: shop, domains: [shop.example.com]}]
    storage: /var/lib/traefik/acme.json
    webroot: /var/www/acme
"""

RETURN = r"""
missing: {description: The sites for which no certificate is shown., type: list, elements: str, returned: always}
obstacles: {description: What stands in the way of each of them., type: dict, returned: always}
unrenewable:
  description: What will stand in the way of the renewal of others.
  type: dict
  returned: always
since: {description: When they were looked at., type: int, returned: always}
renewal_hours:
  description: What C(certificatesDuration) has to be for all to be renewed in time; V(0) where its default does.
  type: int
  returned: always
"""

import base64
import contextlib
import grp
import json
import os
import ssl
import time
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import acme, acme_dns, umask
from ansible_collections.shipshape.droplet.plugins.module_utils import certificates as tls

END = "-----END CERTIFICATE-----"
#: What is put into the watched directory for a moment. The next publication would remove it.
AGAIN = "again.yml"

Stored = List[Tuple[bytes, tls.Certificate]]


def stored(module: AnsibleModule) -> Stored:
    """The certificates that Traefik keeps: as they go over the wire, and what they are for."""
    try:
        with open(module.params["storage"], encoding="utf-8") as handle:
            resolvers = json.load(handle)
    except (FileNotFoundError, ValueError):
        # None yet; or Traefik is writing it, and the next look finds it.
        return []
    found = []
    for resolver in resolvers.values():
        for row in resolver.get("Certificates") or []:
            text = base64.b64decode(row["certificate"]).decode("ascii")
            certificate = tls.parse_pem(module, text)
            if certificate:
                found.append((ssl.PEM_cert_to_DER_cert(text[: text.index(END) + len(END)] + "\n"), certificate))
    return found


def uncovered(module: AnsibleModule, site: Dict[str, Any], kept: Stored) -> List[str]:
    """The names of a site for which Traefik has no certificate, or shows another one."""
    names = []
    for name in site["domains"]:
        right = [wire for wire, certificate in kept if tls.is_for(certificate, name)]
        # Nobody answers where Traefik is stopped: it will show what it has.
        if not right or acme.served(name, module.params["port"]) not in (*right, None):
            names.append(name)
    return names


def look(module: AnsibleModule) -> Dict[str, List[str]]:
    """The sites with names for which none is shown, and these names."""
    kept = [pair for pair in stored(module) if pair[1].remaining > 0]
    found = {site["name"]: uncovered(module, site, kept) for site in module.params["sites"]}
    return {site: names for site, names in found.items() if names}


# ---- how often Traefik has to look


#: Traefik is told how many hours certificates last. From 90 days on, its default, it looks once a day and renews with
#: 30 days left, which does for whatever lasts longer than that by a week or two. Below that, from so many hours on, it
#: looks each 12 hours, each hour, each 10 minutes and each minute, and renews with 10 days, 1 day, 6 hours and 20
#: minutes left.
BY_DEFAULT, STEPS = 40 * 24, (30 * 24, 7 * 24, 24, 1)


def renewal_hours(lifetimes: List[float]) -> int:
    """What to tell it, of certificates that last so many seconds; 0 for its default.

    Not their hours as they are: Traefik reads this once, when it starts, and shall not be restarted for nothing.
    """
    # Authorities count the first second or not, and many let a certificate begin a minute or an hour ago.
    hours = (min(lifetimes) + 60) / 3600 if lifetimes else BY_DEFAULT
    return 0 if hours >= BY_DEFAULT else next((step for step in STEPS if hours >= step), STEPS[-1])


def needed(module: AnsibleModule) -> int:
    # Those that have ended as well: after a week without power it shall look as often as before.
    return renewal_hours([certificate.expires - certificate.starts for _wire, certificate in stored(module)])


# ---- before Traefik is configured


def obstacles(module: AnsibleModule, missing: Dict[str, List[str]]) -> Dict[str, str]:
    """What stands in the way of each site, over HTTP."""
    webroot, found = module.params["webroot"], {}
    with acme.answering(webroot):
        for site, names in missing.items():
            found[site] = [acme.obstacle(name, webroot, own_is_enough=True) for name in names]
    return _texts(found)


def unprovable(module: AnsibleModule, missing: Dict[str, List[str]]) -> Dict[str, str]:
    """What stands in the way of each site, by records in DNS.

    Of all sites: a token that was revoked would be missed until the next renewal. An API that is out of order for a
    moment matters only to those that lack a certificate now.
    """
    every = {**{site["name"]: site["domains"] for site in module.params["sites"]}, **missing}
    try:
        zones = acme_dns.zones(module.params["dns_token"], "traefik_acme_dns")
    except acme_dns.Unusable as error:
        return {site: str(error) for site in every if site in missing or not isinstance(error, acme_dns.Unreachable)}
    return _texts(
        {site: [acme_dns.obstacle(name, zones, "traefik_acme_dns") for name in names] for site, names in every.items()}
    )


def _texts(found: Dict[str, List[Optional[str]]]) -> Dict[str, str]:
    texts = {site: "\n".join(text for text in problems if text) for site, problems in found.items()}
    return {site: text for site, text in texts.items() if text}


# ---- after that


@contextlib.contextmanager
def asked_again(module: AnsibleModule) -> Any:
    """Traefik asks for what it lacks when its configuration changes, and not before."""
    path = os.path.join(module.params["watched"], AGAIN)
    if module.params["again"] and module.params["missing"]:
        unused = {"headers": {"customRequestHeaders": {"Proxy": ""}}}
        nothing = {"http": {"middlewares": {f"shipshape-again-{int(time.time())}": unused}}}
        with open(path + ".new", "w", encoding="utf-8") as handle:
            json.dump(nothing, handle)
        os.chown(path + ".new", 0, grp.getgrnam("traefik").gr_gid)
        os.chmod(path + ".new", 0o640)
        os.replace(path + ".new", path)
    try:
        yield
    finally:
        if os.path.exists(path):
            os.unlink(path)


def complaints(module: AnsibleModule, names: List[str]) -> str:
    """What Traefik's log says of the certificate for names."""
    command = ["journalctl", "--unit", module.params["unit"], "--output", "cat", "--no-pager"]
    _code, out, _err = module.run_command([*command, "--since", "@{}".format(module.params["since"])])
    return reason_in(out, names)


def reason_in(log: str, names: List[str]) -> str:
    """The last that a log says went wrong with the certificate for any of the names."""
    said = ""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        about = json.dumps([entry.get("error"), entry.get("domains"), entry.get("rule")])
        if entry.get("level") == "error" and "ertificate" in line and any(name in about for name in names):
            said = "{}: {}".format(entry.get("message", ""), entry.get("error", "")).strip(": ")
    return said


def wait(module: AnsibleModule) -> Dict[str, str]:
    """Until all is shown that can be; what keeps the others from it."""
    params = module.params
    deadline = time.monotonic() + params["seconds"]
    open_sites = [site for site in params["sites"] if site["name"] in params["missing"]]
    failed = dict(params["obstacles"])
    with asked_again(module):
        while True:
            missing = look(module)
            waiting = {site["name"]: missing[site["name"]] for site in open_sites if site["name"] in missing}
            waiting = {site: names for site, names in waiting.items() if site not in failed}
            for site, names in waiting.items():
                said = complaints(module, names)
                late = time.monotonic() > deadline
                if said or late:
                    log = "See 'journalctl --unit {}' on the droplet.".format(params["unit"])
                    unsaid = "Traefik shows no certificate for {} after {} s, and does not say why.".format(
                        ", ".join(names), params["seconds"]
                    )
                    failed[site] = acme.explain(said, log) if said else f"{unsaid}\n{log}"
            if all(site in failed for site in waiting):
                return failed
            time.sleep(0.5)


def reasons(sites: int, failed: Dict[str, str], unrenewable: Dict[str, str]) -> str:
    """What is wrong, each said once with the sites that it holds for."""
    names: Dict[str, List[str]] = {}
    for site, text in {**failed, **unrenewable}.items():
        names.setdefault(text, []).append(site)
    what = "have no certificate" + (", or it cannot be renewed" if unrenewable else "")
    head = f"{len(failed) + len(unrenewable)} of {sites} sites {what}:\n"
    return head + "\n".join("{}: {}".format(", ".join(those), text) for text, those in names.items())


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            sites=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    name=dict(type="str", required=True), domains=dict(type="list", elements="str", required=True)
                ),
            ),
            storage=dict(type="path", required=True),
            webroot=dict(type="path", required=True),
            preflight=dict(type="bool", default=True),
            dns_provider=dict(type="str", choices=["", "digitalocean"], default=""),
            dns_token=dict(type="str", default="", no_log=True),
            wait=dict(type="bool", default=False),
            missing=dict(type="list", elements="str", default=[]),
            obstacles=dict(type="dict", default={}),
            unrenewable=dict(type="dict", default={}),
            since=dict(type="int", default=0),
            again=dict(type="bool", default=False),
            seconds=dict(type="int", default=60),
            unit=dict(type="str", default="traefik.service"),
            watched=dict(type="path", default="/etc/traefik/dynamic"),
            port=dict(type="int", default=443),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    params = module.params
    if not params["wait"]:
        now, missing, found = int(time.time()), look(module), {}
        if params["preflight"] and not module.check_mode:
            if params["dns_provider"]:
                found = unprovable(module, missing)
            elif missing:
                found = obstacles(module, missing)
        module.exit_json(
            changed=False,
            missing=list(missing),
            obstacles={site: text for site, text in found.items() if site in missing},
            unrenewable={site: text for site, text in found.items() if site not in missing},
            since=now,
            renewal_hours=needed(module),
        )
    diffs = [
        {
            "before_header": f"certificate {name}",
            "after_header": f"certificate {name}",
            "before": "none\n",
            "after": "Traefik's own\n",
        }
        for name in params["missing"]
    ]
    failed = {} if module.check_mode else wait(module)
    result = {
        "changed": len(failed) < len(params["missing"]),
        "missing": list(failed),
        "obstacles": failed,
        "unrenewable": params["unrenewable"],
        "since": params["since"],
        "renewal_hours": needed(module),
        "diff": diffs,
    }
    if not module.check_mode and (failed or params["unrenewable"]):
        module.fail_json(msg=reasons(len(params["sites"]), failed, params["unrenewable"]), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
