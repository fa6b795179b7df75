"""What the user writes of a site: where an app answers, and what the proxy does for it."""

from __future__ import annotations

from dataclasses import replace

from .checks import (
    basic_password,
    hostname,
    https_url,
    matches,
    network,
    placeholder,
    site_domain,
    url_path,
)
from .problems import Fault
from .schema import Flag, Items, Key, Number, OneOf, Pairs, Scalar, Table, Text
from .site import is_of_the_proxy

DOMAINS = "a list of domains, or of paths on domains, such as [api.example.com, example.com/api]"


def filled_in(wanted: str, pattern: str) -> Text:
    """A text that must not be a placeholder."""

    def check(value: str) -> Fault | None:
        return Fault("a placeholder", wanted) if placeholder(value) else matches(pattern, wanted)(value)

    return Text(wanted, (check,))


RATE_LIMIT = Table(
    {
        "per_second": Key(Number("requests a second and address, 1 to 1000000", 1, 1000000)),
        "per_minute": Key(Number("requests a minute and address, 1 to 1000000", 1, 1000000)),
        "per_hour": Key(Number("requests an hour and address, 60 to 10000000", 60, 10000000)),
        "burst": Key(Number("requests let through at once, 0 to 1000000", 0, 1000000)),
    },
    "a limit for each address, such as {per_minute: 1000}; with {per_minute: 1000, per_hour: 10000} both hold",
)


def request_header(value: str) -> Fault | None:
    """The name of a header that another host gets."""
    if fault := matches("[A-Za-z0-9-]+", "the name of a header: letters, digits and hyphens")(value):
        return fault
    return Fault(f"{value}, which the proxy itself sets", "no such header") if is_of_the_proxy(value) else None


UPSTREAM = Text("the https URL of another host, such as https://api.example.com", (https_url,))
REQUEST_HEADERS = Pairs(
    lambda _name: Text("the header's value", (matches(r"[ -~]+", "a text in one line of plain characters"),)),
    "headers, such as {X-Script-Name: /superset}",
    request_header,
)
PLAIN_PATH = matches(r"(/[A-Za-z0-9._~-]+)+", "a path below /, such as /token, with no slash at its end")


def response_header(value: str) -> Fault | None:
    """The name of a header that a site adds to its answers."""
    if fault := matches("[A-Za-z0-9-]+", "the name of a header: letters, digits and hyphens")(value):
        return fault
    if value.lower() == "strict-transport-security":
        return Fault(f"{value}, which the proxy itself sets", "`nginx_hsts`, which holds for all sites")
    if value.lower().startswith("access-control-"):
        return Fault(f"{value}, which the proxy itself sets", "`cors` beside `headers`")
    if value.lower() in {"content-length", "content-encoding", "transfer-encoding", "connection", "date", "server"}:
        return Fault(f"{value}, which the proxy itself sets", "no such header")
    return None


HEADERS = Pairs(
    lambda _name: Scalar(
        'the header\'s value, or "" for no such header', (matches(r"[ -~]*", "a text in one line of plain characters"),)
    ),
    "headers of all answers, such as {Content-Security-Policy: \"default-src 'self'\"}",
    response_header,
)
BASIC_AUTH = Table(
    {
        "users": Key(
            Pairs(
                lambda _name: Text("a password from the vault", (basic_password,), True),
                'names with their passwords, such as {ops: "{{ vault_ops_password }}"}',
                matches(r"[A-Za-z0-9._@-]+", "a user's name: letters, digits and ._@-"),
            ),
            required=True,
        ),
        "paths": Key(
            Items(Text("a path of the site", (PLAIN_PATH,)), "the paths to guard, such as [/admin]", 1, or_one=True)
        ),
    },
    'who may come, such as {users: {ops: "{{ vault_ops_password }}"}}',
)
MAINTENANCE = OneOf(
    Flag("true (closed: everybody is told to come again, but for the health path) or false"),
    Table(
        {"message": Key(Text("what the page says, in plain text"), required=True)},
        'true, or {message: "Back at 18:00."}: everybody is told to come again',
    ),
)
LOCATION = Table(
    {
        "url": Key(UPSTREAM, required=True),
        "strip": Key(Flag("true (the other host does not see the path itself) or false")),
        "priority": Key(Number("which path goes first, 1 to 1000; without it 10, and the longer path first", 1, 1000)),
        "request_headers": Key(REQUEST_HEADERS),
    },
    "the https URL of another host, or {url: …, strip: true}",
)
CORS = Table(
    {
        "origins": Key(
            Items(
                Text(
                    "an origin, such as https://app.example.com",
                    (matches(r"https://[A-Za-z0-9.-]+(:\d+)?", "an origin: https://, a name, no path"),),
                ),
                "a list of origins, such as [https://app.example.com]",
                least=1,
            ),
            required=True,
        ),
        "methods": Key(
            Items(
                Text("a method of HTTP, such as GET", (matches("[A-Z]+", "a method of HTTP, such as GET"),)),
                "a list of methods, such as [GET, POST]",
            )
        ),
        "headers": Key(
            Items(
                Text("the name of a header", (matches("[A-Za-z0-9-]+", "the name of a header"),)),
                "a list of headers, such as [Authorization]",
            )
        ),
    },
    "whose scripts may ask, such as {origins: [https://app.example.com]}",
)

DOMAIN_LIST = Items(Text("a domain, or a path of one", (site_domain,)), DOMAINS)
SOME_DOMAINS = Key(replace(DOMAIN_LIST, least=1), required=True)
ROUTING = {
    "domains": Key(DOMAIN_LIST),
    "strip": Key(Flag("true (the app does not see the path of `domains` at which it is) or false")),
    "priority": Key(
        Number("which path of a domain goes first, 1 to 1000; without it 10, and the longer path first", 1, 1000)
    ),
    "request_headers": Key(REQUEST_HEADERS),
    "redirect_domains": Key(
        Items(Text("a domain", (hostname,)), "a list of domains that lead to the first of `domains`")
    ),
    "rate_limit": Key(RATE_LIMIT),
    "rate_limits": Key(
        Pairs(
            lambda _path: RATE_LIMIT,
            "limits by path, such as {/token: {per_minute: 5}}, beside `rate_limit`",
            PLAIN_PATH,
            label="PATH",
        )
    ),
    "headers": Key(HEADERS),
    "basic_auth": Key(BASIC_AUTH),
    "allow": Key(
        Items(
            Text("an address or a network, such as 198.51.100.0/24", (network,)),
            "who may come, such as [198.51.100.0/24]; everybody else is refused, but for the health path",
            1,
            or_one=True,
        )
    ),
    "maintenance": Key(MAINTENANCE),
    "cors": Key(CORS),
    "locations": Key(
        Pairs(
            lambda _path: OneOf(UPSTREAM, LOCATION),
            'paths that another host serves, such as {/api: "https://api.example.com"}',
            url_path,
            label="PATH",
        )
    ),
    "max_body_size": Key(filled_in('the largest request, such as "10m"', "[1-9][0-9]*[kmg]?")),
}
