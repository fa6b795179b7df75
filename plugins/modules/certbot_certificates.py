#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_certificates
short_description: Configure certbot and have it issue the declared certificates, all in one trip
version_added: 0.1.0
description:
  - Applies the files and units as M(shipshape.droplet.files) does, before anything else.
  - Looks at what certbot has. A certificate that is missing, has expired or soon will, is for other names, from another
    authority or renewed by another kind of proof is asked for. Nothing is asked of the authority otherwise.
  - Before the authority is asked, each name is tried as it would try it. A name that leads elsewhere is reported with
    what points where, and does not count against the authority's rate limit. With O(dns_provider) its API is asked in
    place of that, at each run, whether it takes the token and has the zones.
  - One certificate that fails does not keep the others from being issued; the task fails at its end, with all reasons.
  - O(links) gets a link for each certificate, to certbot's directory of it, set by one atomic rename.
  - What the web server shows is compared with the file. It is reloaded when they differ.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  certificates:
    description: The certificates that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the certificate, type: str, required: true}
      domains: {description: Exactly the names that it is for, type: list, elements: str, required: true}
  directory: {description: Address of the ACME directory, type: str, required: true}
  email: {description: Address of the account; none when empty, type: str, default: ""}
  webroot: {description: Directory from which the web server answers challenges, type: path, required: true}
  links: {description: Directory of the links, type: path, default: /etc/shipshape/tls}
  config: {description: Certbot's directory, type: path, default: /etc/letsencrypt}
  ca_bundle: {description: File of roots to verify the authority with; the system's when empty, type: str, default: ""}
  dns_provider:
    description: Who has the zones in which names, also wildcards, are proven. Empty for proofs over HTTP.
    type: str
    choices: ["", digitalocean]
    default: ""
  dns_credentials:
    description:
      - File of certbot's plugin with the token for the provider's API; O(files) has to have it. It is removed when
        no certificate is renewed by it any more.
    type: path
    default: /etc/letsencrypt/shipshape-dns.ini
  dns_propagation_seconds:
    description: Seconds after which a record counts as known to all of the provider's name servers.
    type: int
    default: 10
  preflight: {description: Whether to try each name before the authority does, type: bool, default: true}
  reload_command: {description: Shell command after which the web server shows new certificates, type: str, default: ""}
  port: {description: Port of 127.0.0.1 on which the web server shows them, type: int, default: 443}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Certificates | Issue what is missing
  shipshape.droplet.certbot_certificates:
    certificates:
      - {name: shop, domains: [shop.example.com, www.shop.example.com]}
    directory: https://acme-v02.api.letsencrypt.org/directory
    email: ops@example.com
    webroot: /var/www/acme
    reload_command: nginx -t && systemctl reload nginx
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
certificates:
  description: Every certificate asked for, as it is now.
  type: list
  elements: dict
  returned: always
  contains:
    name: {description: Its name., type: str}
    domains: {description: The names it is for., type: list, elements: str}
    directory: {description: The authority it comes from., type: str}
    expires: {description: When it ends; empty when there is none yet., type: str}
    action: {description: Why it was (or would be) asked for; empty when it stays., type: str}
    error: {description: Why there is none; empty when all is well., type: str}
reloaded:
  description: Whether the web server was (or would be) reloaded.
  type: bool
  returned: always
"""

import glob
import os
import time
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import acme, acme_dns, file_set, umask
from ansible_collections.shipshape.droplet.plugins.module_utils import certificates as tls

ATTEMPTS = 4


class Wanted:
    """One declared certificate and what certbot has of it."""

    def __init__(self, module: AnsibleModule, spec: Dict[str, Any]) -> None:
        self.module = module
        self.name: str = spec["name"]
        self.domains: List[str] = list(dict.fromkeys(tls.normal_name(domain) for domain in spec["domains"]))
        self.live = os.path.join(module.params["config"], "live", self.name)
        self.link = os.path.join(module.params["links"], self.name)
        self.error = ""
        self.look()
        self.action = self.reason()

    def look(self) -> None:
        self.lineage = acme.lineage(self.module.params["config"], self.name)
        self.found = tls.read(self.module, os.path.join(self.live, "fullchain.pem"))

    def reason(self) -> str:
        """Why it must be asked for; empty when what is there shall stay."""
        found, directory = self.found, self.module.params["directory"]
        if found is None or not self.lineage:
            return "there is none"
        if found.names != sorted(self.domains):
            return "it is for {}".format(", ".join(found.names))
        if self.lineage.get("server") != directory:
            return "it is from {}".format(self.lineage.get("server"))
        provider, proof = self.module.params["dns_provider"], self.lineage.get("authenticator", "")
        if provider and proof != f"dns-{provider}":
            return "it is proven over HTTP and not by DNS"
        # Whatever else somebody has chosen for it (another plugin of the web server's) stays.
        if not provider and proof.startswith("dns-"):
            return "it is proven by DNS and not over HTTP"
        if found.remaining <= 0:
            return f"it ended on {tls.iso(found.expires)}"
        # certbot renews in the last third. Who comes here with less has a renewal that does not work.
        if found.remaining < (found.expires - found.starts) / 4:
            return f"it ends on {tls.iso(found.expires)} and was not renewed"
        return ""

    @property
    def linked(self) -> bool:
        return os.path.islink(self.link) and os.readlink(self.link) == self.live

    def put_link(self) -> None:
        os.makedirs(os.path.dirname(self.link), mode=0o755, exist_ok=True)
        if os.path.isdir(self.link) and not os.path.islink(self.link):
            self.error = (
                f"{self.link} holds files that Shipshape did not put there; move the directory away and run again."
            )
            return
        temporary = self.link + ".shipshape"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(self.live, temporary)
        os.replace(temporary, self.link)

    def shown(self) -> bool:
        """Whether the web server shows what is in the file. True when no server answers: it will, once it starts."""
        port = self.module.params["port"]
        current = acme.first_certificate(os.path.join(self.live, "fullchain.pem"))
        return all(acme.served(domain, port) in (current, None) for domain in self.domains)

    def report(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "domains": self.domains,
            "directory": self.lineage.get("server", ""),
            "expires": tls.iso(self.found.expires) if self.found else "",
            "action": self.action,
            "error": self.error,
        }


def command(module: AnsibleModule, wanted: Wanted) -> List[str]:
    program = module.get_bin_path("certbot")
    if not program:
        module.fail_json(msg="The program certbot is not on this host; install the package certbot.")
    params = module.params
    words = [program, "certonly", "--non-interactive", "--agree-tos", "--no-eff-email", "--server", params["directory"]]
    words += ["--email", params["email"]] if params["email"] else ["--register-unsafely-without-email"]
    words += ["--cert-name", wanted.name, "--config-dir", params["config"], "--key-type", "ecdsa"]
    words += proof(params)
    if wanted.lineage:
        # Names or authority have changed, or it has nearly ended: certbot must not keep what it has.
        words += ["--force-renewal", "--renew-with-new-domains", "--break-my-certs"]
    for domain in wanted.domains:
        words += ["--domain", domain]
    return words


def proof(params: Dict[str, Any]) -> List[str]:
    """How the authority is shown that the names are ours; certbot notes it for the renewal."""
    if not params["dns_provider"]:
        return ["--webroot", "--webroot-path", params["webroot"], "--preferred-challenges", "http"]
    plugin = "dns-" + params["dns_provider"]
    return [
        *("--authenticator", plugin, "--preferred-challenges", "dns"),
        *(f"--{plugin}-credentials", params["dns_credentials"]),
        *(f"--{plugin}-propagation-seconds", str(params["dns_propagation_seconds"])),
    ]


def look_at_zones(module: AnsibleModule, everything: List[Wanted]) -> None:
    """Whether a record can be made for each name; what stands in the way is left in ``error`` of each certificate.

    At each run, not only before something is asked for: a token that was revoked would be missed at the next renewal.
    An API that is out of order for a moment matters only now.
    """
    try:
        found = acme_dns.zones(acme_dns.token_of(module.params["dns_credentials"]), "certbot_dns")
    except acme_dns.Unusable as error:
        for wanted in everything:
            if wanted.action or not isinstance(error, acme_dns.Unreachable):
                wanted.error = str(error)
        return
    for wanted in everything:
        obstacles = [acme_dns.obstacle(domain, found, "certbot_dns") for domain in wanted.domains]
        wanted.error = "\n".join(problem for problem in obstacles if problem)


def credentials_are_left(module: AnsibleModule, renewed_otherwise: List[Wanted]) -> bool:
    """Whether the credentials of a provider are there though no certificate is renewed by them any more."""
    path, config = module.params["dns_credentials"], module.params["config"]
    if module.params["dns_provider"] or not os.path.exists(path):
        return False
    names = {os.path.basename(entry)[: -len(".conf")] for entry in glob.glob(os.path.join(config, "renewal", "*.conf"))}
    names -= {wanted.name for wanted in renewed_otherwise}
    return not any(path in acme.lineage(config, name).values() for name in names)


def issue(module: AnsibleModule, wanted: Wanted) -> None:
    """Ask the authority; what goes wrong is left in ``wanted.error``."""
    if module.params["preflight"] and not module.params["dns_provider"]:
        obstacles = [acme.obstacle(domain, module.params["webroot"]) for domain in wanted.domains]
        wanted.error = "\n".join(problem for problem in obstacles if problem)
        if wanted.error:
            return
    environment = {"REQUESTS_CA_BUNDLE": module.params["ca_bundle"]} if module.params["ca_bundle"] else {}
    output = ""
    for attempt in range(ATTEMPTS):
        code, out, err = module.run_command(command(module, wanted), environ_update=environment)
        if code == 0:
            wanted.look()
            if wanted.reason():
                wanted.error = f"certbot reports success, but {wanted.reason()}."
            return
        output = out + "\n" + err
        if not acme.TRANSIENT.search(output):
            break
        if attempt < ATTEMPTS - 1:
            time.sleep(5 * 2**attempt)
    wanted.error = acme.explain(output)


def reload_server(module: AnsibleModule, wanted: List[Wanted]) -> str:
    """Reload, and wait until every certificate is shown. What is wrong, or nothing."""
    code, out, err = module.run_command(module.params["reload_command"], use_unsafe_shell=True)
    if code != 0:
        return "'{}' failed (exit {}): {}".format(module.params["reload_command"], code, (err or out).strip())
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        late = [item.name for item in wanted if not item.shown()]
        if not late:
            return ""
        time.sleep(0.1)
    return "After '{}' the web server still shows another certificate than the file for {}. {}".format(
        module.params["reload_command"],
        ", ".join(late),
        "Does its site read the files in {}?".format(module.params["links"]),
    )


def reasons(everything: List[Wanted]) -> List[str]:
    """What is wrong, each said once with the certificates that it holds for."""
    names: Dict[str, List[str]] = {}
    for wanted in everything:
        if wanted.error:
            names.setdefault(wanted.error, []).append(wanted.name)
    return ["{}: {}".format(", ".join(those), error) for error, those in names.items()]


def diff(wanted: Wanted, before: str) -> Dict[str, str]:
    header = "certificate " + wanted.name
    after = "{} from {}\n".format(", ".join(sorted(wanted.domains)), wanted.module.params["directory"])
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def describe(wanted: Wanted) -> str:
    if wanted.found is None:
        return "none\n"
    ends = f" until {tls.iso(wanted.found.expires)}" if wanted.action.startswith("it end") else ""
    return "{} from {}{}\n".format(
        ", ".join(wanted.found.names), wanted.lineage.get("server", "an unknown authority"), ends
    )


def main() -> None:
    options = file_set.argument_spec()
    options.update(
        certificates=dict(
            type="list",
            elements="dict",
            required=True,
            options=dict(
                name=dict(type="str", required=True), domains=dict(type="list", elements="str", required=True)
            ),
        ),
        directory=dict(type="str", required=True),
        email=dict(type="str", default=""),
        webroot=dict(type="path", required=True),
        links=dict(type="path", default="/etc/shipshape/tls"),
        config=dict(type="path", default="/etc/letsencrypt"),
        ca_bundle=dict(type="str", default=""),
        dns_provider=dict(type="str", choices=["", "digitalocean"], default=""),
        dns_credentials=dict(type="path", default="/etc/letsencrypt/shipshape-dns.ini"),
        dns_propagation_seconds=dict(type="int", default=10),
        preflight=dict(type="bool", default=True),
        reload_command=dict(type="str", default=""),
        port=dict(type="int", default=443),
    )
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    umask.ordinary()
    result = file_set.converge(module, file_set.declared(module))
    everything = [Wanted(module, spec) for spec in module.params["certificates"]]
    to_issue = [wanted for wanted in everything if wanted.action]
    diffs = [diff(wanted, describe(wanted)) for wanted in to_issue]
    if not module.check_mode:
        if module.params["dns_provider"] and module.params["preflight"]:
            look_at_zones(module, everything)
        for wanted in to_issue:
            if not wanted.error:
                issue(module, wanted)

    # After that: until then a renewal needs them.
    surplus = credentials_are_left(module, to_issue if module.check_mode else [])
    if surplus:
        diffs.append({"before_header": module.params["dns_credentials"], "before": "credentials\n", "after": ""})
        if not module.check_mode:
            os.unlink(module.params["dns_credentials"])

    good = [wanted for wanted in everything if wanted.found and not wanted.error and not wanted.reason()]
    to_link = [wanted for wanted in good if not wanted.linked]
    if not module.check_mode:
        for wanted in to_link:
            wanted.put_link()
    good = [wanted for wanted in good if wanted.linked]
    # By what is shown, not by what was done: a run cut off before the reload is made good by the next one.
    reload_needed = bool(module.params["reload_command"]) and not all(wanted.shown() for wanted in good)
    problems = reasons(everything)
    if reload_needed and not module.check_mode:
        problem = reload_server(module, good)
        problems += [problem] if problem else []

    issued = [wanted for wanted in to_issue if module.check_mode or not wanted.error]
    result["changed"] = bool(result["changed"] or issued or to_link or reload_needed or surplus)
    result["diff"] = result.get("diff", []) + diffs
    result.update(certificates=[wanted.report() for wanted in everything], reloaded=reload_needed)
    if problems:
        count = len([wanted for wanted in everything if wanted.error])
        asked = all(wanted.action for wanted in everything if wanted.error)
        what = "could not be issued" if asked else "could not be issued, or cannot be renewed"
        head = f"{count} of {len(everything)} certificates {what}:\n" if count else ""
        module.fail_json(msg=head + "\n".join(problems), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
