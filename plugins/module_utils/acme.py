"""Asking a certificate authority, with the likely obstacles found before it is asked and explained when it refuses."""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import os
import re
import secrets
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Dict, Iterator, List, Optional, Tuple

CHALLENGES = ".well-known/acme-challenge"
TIMEOUT = 10
#: Seconds that this droplet's own web server is given to answer as it was told.
PATIENCE = 5

#: The variables as a user of the whole site writes them, and of the role alone.
STAGING = "acme_staging: true (certbot_staging: true for the role alone)"

#: What authorities and certbot say, and what to do about it. The first that matches explains.
EXPLANATIONS: Tuple[Tuple[str, str], ...] = (
    (
        r"using the DigitalOcean API|communicating with the DigitalOcean API|Unable to determine base domain",
        "The record could not be made in DNS. The token in acme_dns (certbot_dns for the role alone) needs the scopes "
        "domain:read, domain:create, domain:update and domain:delete, and its account the zone of this name.",
    ),
    (
        r"Incorrect TXT record|No TXT record found|looking up TXT",
        "The authority did not find the record that was made for it. The zone's name servers must be DigitalOcean's "
        "(ask 'dig NS' for the domain), and they may need longer: propagation_seconds in acme_dns (certbot_dns for "
        "the role alone).",
    ),
    (
        r"too many failed authorizations|too many invalid authorizations",
        "The authority has seen too many failed attempts for this name. Mend the cause (its DNS record, port 80), "
        f"try it with {STAGING}, and come back in an hour.",
    ),
    (
        r"too many certificates .*already issued|too many certificates \(\d+\)",
        "The authority's weekly limit of certificates for these names is used up. Those that exist stay valid; come "
        f"back at the time it names (at most 7 days), and make tests with {STAGING}.",
    ),
    (
        r"rateLimited|too many (?:new|requests|currently|registrations)|rate ?limit",
        "The authority's rate limit is reached. Nothing is wrong on the droplet: come back at the time it names, "
        f"and make tests with {STAGING}, where the limits are far wider.",
    ),
    (
        r"\bcaa\b.*(?:forbid|prevent|prohibit|record)|error:caa",
        'A CAA record in DNS forbids this authority. Add one that allows it (0 issue "letsencrypt.org"), or remove '
        "them all.",
    ),
    (
        r"NXDOMAIN|DNS problem|error:dns|Type:\s+dns",
        "The authority does not find the name in the public DNS. A new record can take up to an hour; run again then.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "This droplet does not trust the authority's own certificate. For an authority of your own, set "
        "certbot_ca_bundle to a file with its root.",
    ),
    (
        r"Type:\s+connection|error:connection|Timeout during connect",
        "The authority cannot reach port 80 of this name from the internet. Look at the firewall in front of the "
        "droplet (the provider's too), and at the name's AAAA record: an authority tries IPv6 first.",
    ),
    (
        r"Type:\s+unauthorized|error:unauthorized|Invalid response from",
        "Another server answered the authority than this droplet. Look where the name's A and AAAA records point.",
    ),
    (
        r"rejectedIdentifier|is not a valid|policy forbids|not end with a valid public suffix",
        "The authority does not issue for this name. It must be a name in the public DNS, not an internal one.",
    ),
    (
        r"invalidContact|invalidEmail|unsupportedContact|contact email|parse email",
        "The authority does not accept the address in acme_email (certbot_email for the role alone).",
    ),
    (
        r"accountDoesNotExist|account .*(?:not found|deactivated)",
        "The authority does not know certbot's account any more. Remove it on the droplet with "
        "'certbot unregister --non-interactive --server <directory>' and run again.",
    ),
    (
        r"Name or service not known|Temporary failure in name resolution|Failed to resolve|Max retries exceeded|"
        r"Connection refused|Network is unreachable|Read timed out|serverInternal|Service busy",
        "The authority cannot be reached or is out of order. Check acme_directory (certbot_directory for the role "
        "alone), and run again later.",
    ),
)

#: Worth another try by itself.
TRANSIENT = re.compile(
    r"Another instance of Certbot|Temporary failure in name resolution|Max retries exceeded|Read timed out|"
    r"Connection refused|Connection reset|serverInternal|Service busy|badNonce"
)


def explain(output: str, log: str = "See /var/log/letsencrypt/letsencrypt.log on the droplet.") -> str:
    """What the authority said, shortened to the lines that matter, and what to do about it."""
    wanted = []
    for line in output.splitlines():
        text = line.strip(" -\t")
        if re.match(r"(?:Domain|Type|Detail):", text) or re.search(r"urn:ietf:|[Ee]rror|limit|retry after", text):
            wanted.append(text)
    said = "\n".join(dict.fromkeys(wanted)) or "\n".join(output.strip().splitlines()[-5:])
    for pattern, advice in EXPLANATIONS:
        if re.search(pattern, output, re.IGNORECASE | re.DOTALL):
            return f"{said}\n{advice}"
    return f"{said}\n{log}"


def own_addresses() -> List[str]:
    """The addresses from which this host speaks to the internet."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # chooses a route and sends nothing
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return found


def resolve(name: str) -> List[str]:
    try:
        answers = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def fetch(address: str, name: str, path: str) -> Tuple[int, bytes]:
    """Status and body of a page of a name at one of its addresses. Redirects are followed, as an authority does."""
    connection = http.client.HTTPConnection(address, 80, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"Host": name, "User-Agent": "shipshape-preflight"})
        response = connection.getresponse()
        body = response.read(4096)
        location = response.getheader("Location")
    finally:
        connection.close()
    if response.status in (301, 302, 303, 307, 308) and location:
        context = ssl.create_default_context()
        # An authority does not verify certificates on this way either: the name may have none yet.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(location, timeout=TIMEOUT, context=context) as page:
                return int(page.status), bytes(page.read(4096))
        except urllib.error.HTTPError as error:
            return int(error.code), b""
    return response.status, body


def obstacle(name: str, webroot: str, own_is_enough: bool = False) -> Optional[str]:
    """Why an authority would refuse this name. None when it leads, over port 80, to a file we put in the webroot.

    With `own_is_enough` an address of this droplet's own is right as it is: the server that will answer there is not
    up yet, or not as it will be.
    """
    here = own_addresses()
    this = "this droplet is %s" % (" and ".join(here) or "without an address")
    if name.startswith("*."):
        return f"{name}: a wildcard cannot be proven over HTTP. Set acme_dns (certbot_dns for the role alone)."
    addresses = resolve(name)
    if not addresses:
        record = f"'{name} A {here[0]}'" if here else "an A record"
        return f"DNS has no address for {name}; {this}. Add the record {record} and run again."
    token = secrets.token_hex(16)
    path = f"{CHALLENGES}/shipshape-{token}"
    file = os.path.join(webroot, path)
    os.makedirs(os.path.dirname(file), mode=0o755, exist_ok=True)
    try:
        with open(file, "w", encoding="ascii") as handle:
            handle.write(token)
        os.chmod(file, 0o644)
        for address in addresses:
            if own_is_enough and address in here:
                continue
            problem = _try(address, name, "/" + path, token.encode(), address in here, this)
            # A web server that was told to reload a moment ago may still answer by its old configuration.
            for _attempt in range(PATIENCE if address in here else 0):
                if not problem:
                    break
                time.sleep(1)
                problem = _try(address, name, "/" + path, token.encode(), True, this)
            if problem:
                return problem
    finally:
        if os.path.exists(file):
            os.unlink(file)
    return None


class _Page(http.server.SimpleHTTPRequestHandler):
    """A file of the webroot, and nothing about it in a log."""

    def log_message(self, *_: Any) -> None:
        return


@contextlib.contextmanager
def answering(webroot: str, port: int = 80) -> Iterator[None]:
    """Have the webroot answered for while no web server does it."""
    try:
        server = http.server.ThreadingHTTPServer(("", port), functools.partial(_Page, directory=webroot))
    except OSError:
        # One is up.
        yield
        return
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _try(address: str, name: str, path: str, token: bytes, ours: bool, this: str) -> Optional[str]:
    try:
        status, body = fetch(address, name, path)
    except (OSError, http.client.HTTPException) as error:
        found = "port 80 there does not answer (%s)" % (str(error) or error.__class__.__name__)
    else:
        if status == 200 and body.strip() == token:
            return None
        found = f"http://{name}{path} is answered with {status} and not with the file we put into the webroot"
    if ours:
        question = "Is the web server up, and is its site for this name?"
        return f"DNS for {name} points to this droplet ({address}), but {found}. {question}"
    advice = "Point the record to this droplet"
    if ":" in address:
        advice = "An authority tries IPv6 first: correct the AAAA record or remove it"
    return f"DNS for {name} points to {address}; {this}, and {found}. {advice} and run again."


def served(name: str, port: int) -> Optional[bytes]:
    """The certificate that the local web server shows for a name, or None when none answers."""
    if name.startswith("*."):
        name = "any" + name[1:]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as raw:
            with context.wrap_socket(raw, server_hostname=name) as connection:
                return connection.getpeercert(binary_form=True)
    except OSError:
        return None


def first_certificate(path: str) -> bytes:
    """The first certificate of a PEM file, as it goes over the wire."""
    with open(path, encoding="ascii") as handle:
        text = handle.read()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)] + "\n")


def lineage(config: str, name: str) -> Dict[str, Any]:
    """What certbot notes for the renewal of a certificate; empty when it has none of that name."""
    path = os.path.join(config, "renewal", name + ".conf")
    try:
        with open(path, encoding="utf-8") as handle:
            lines = handle.read().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}
