"""Every bad inventory is refused with its message, every sound one passes, and nothing hides behind anything else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.hooks import MOMENTS
from ansible_collections.shipshape.droplet.plugins.plugin_utils.problems import Problem, Unresolved, report
from ansible_collections.shipshape.droplet.plugins.plugin_utils.validate import problems
from inventory_cases import BASES, cases, inventory, mutate

CASES = list(cases())


def found(base: str, **case: Any) -> list[Problem]:
    refused: list[Problem] = problems(inventory(mutate(BASES[base], case)))
    return refused


def test_there_are_eighty_cases_and_no_two_have_one_name() -> None:
    assert len(CASES) >= 80
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_bad_inventory_is_refused_with_its_message_alone(case: dict[str, Any]) -> None:
    refused = problems(inventory(mutate(BASES[case.get("base", "one_droplet")], case)))
    text = report(refused)
    assert [problem.place for problem in refused] == [case["path"], *case.get("also", [])], text
    assert case["found"] in refused[0].found, text
    assert case["wanted"] in refused[0].wanted, text
    if "unseen" in case:
        assert case["unseen"] not in text


@pytest.mark.parametrize("base", BASES)
def test_a_sound_inventory_passes(base: str) -> None:
    assert found(base) == []


SOUND: dict[str, dict[str, Any]] = {
    "an address instead of a domain": {
        "set": {"apps.malar-web.domains": ["164.92.130.7"]},
        "remove": ["apps.malar-web.redirect_domains"],
    },
    "apps on one domain, each at its path": {
        "set": {
            "apps.malar-api.domains": ["malar-market-ledger.com/ledger", "api.malar.in"],
            "apps.malar-api.strip": True,
            "apps.malar-api.priority": 20,
            "apps.malar-api.request_headers": {"X-Script-Name": "/ledger"},
            # Not of the other app, which is at /ledger.
            "apps.malar-web.rate_limits": {"/ledgers": {"per_minute": 5}},
        }
    },
    "a site that is told of its switch": {
        "set": {
            "apps.malar-web.hooks": {"before_switch": "./check", "after_switch": "./purge"},
            "apps.malar-web.env": {"PURGE": "https://cdn.malar.in/purge"},
        }
    },
    "every moment there is": {"set": {"apps.worker.hooks": dict.fromkeys(MOMENTS, "true")}},
    "a path on a domain that is nobody's": {"set": {"apps.malar-api.domains": ["malar.in/api"]}},
    "a git server of one's own over ssh, and its line of ssh-keyscan": {
        "set": {
            "apps.malar-web.source.git": "ssh://git@git.malar.in:2222/web.git",
            "apps.malar-web.source.host_key": "[git.malar.in]:2222 ssh-ed25519 "
            "AAAAC3NzaC1lZDI1NTE5AAAAIJy/mOO0m/lkKoKNf7CxSmgTtGlHxbRObo2ShCQDcLNB\n",
        }
    },
    "no app at all": {"set": {"apps": {}}, "remove": ["acme_email"]},
    "no backup": {"remove": ["backup"]},
    "no email address where no certificate is needed": {
        "set": {"apps.malar-web.domains": ["164.92.130.7"]},
        "remove": ["apps.malar-web.redirect_domains", "apps.malar-api", "acme_email"],
    },
    "a program that reads its port from the environment": {"set": {"apps.malar-api.command": "python serve.py"}},
    "a server with a configuration file": {"set": {"apps.malar-api.command": "gunicorn -c conf.py app:app"}},
    "a command on the loopback where the proxy is on the same machine": {
        "set": {"apps.malar-api.command": "uvicorn app.main:app --host 127.0.0.1 --port $PORT"}
    },
    "a given port, and the same in the command": {
        "set": {"apps.malar-api.port": 8000, "apps.malar-api.command": "uvicorn app:app --port $PORT"}
    },
    "a shell that is asked for": {"set": {"apps.malar-api.command": "sh -c 'a && exec uvicorn a:b --port $PORT'"}},
    "a migration of two steps": {"set": {"apps.malar-api.migrate": "alembic upgrade head && python seed.py"}},
    "the app's port in the environment": {"set": {"apps.malar-api.env.PORT": 22062}},
    "a database URL of one's own": {"set": {"apps.malar-api.env.DATABASE_URL": "postgresql+asyncpg://u:p@h/d"}},
    "names that hold secret words and no secrets": {
        "set": {
            "apps.malar-api.env.TOKEN_TYPE": "jwt",
            "apps.malar-api.env.SECRET_KEY_FALLBACKS": "",
            "apps.malar-api.env.STRIPE_PUBLIC_KEY": "pk_live",
            "apps.malar-api.env.PASSWORD_MIN_LENGTH": 8,
            "apps.malar-api.env.MODE": "replace",
        }
    },
    "a vault and variables of one's own": {"set": {"vault_malar_key": "x", "malar_domain": "malar.in", "domain": "x"}},
    "a host that is reached by name": {
        "remove": ["hosts.web1.ansible_host"],
        "set": {"hosts.web1.ansible_connection": "docker"},
    },
    "an app chosen on the command line": {"set": {"app": "malar-api", "version": "v2"}},
    "the way in, the firewall and the kernel, as they may be": {
        "set": {
            "hardening_ssh_port": "2222",
            "hardening_ssh_sources": ["198.51.100.7", "10.8.0.0/16", "2001:db8::/32"],
            "hardening_firewall_rules": [
                {"name": "smtp", "port": 25},
                {"name": "dns", "port": 53},
                {"name": "dns", "port": 53, "protocol": "udp"},
                {"name": "reports", "port": 5432, "sources": ["0.0.0.0/0", "::/0"]},
            ],
            "hardening_timezone": "Asia/Kolkata",
            "hardening_sysctl": {"net.core.somaxconn": 4096, "net/ipv4/conf/eth0.100/forwarding": "0"},
        }
    },
    "a role's own variables": {
        "set": {
            "docker_origin": "upstream",
            "hardening_ssh_port": "2222",
            "hardening_unattended_upgrades": "yes",
            "postgresql_roles": [{"password": 7}],
            "hardening_firewall_rules": [{"name": "smtp", "port": 25}],
            "nginx_sites": [],
        }
    },
    "names of 32 characters": {
        "set": {"admins[0].name": "maintainer-of-the-malar-marketdb"},
        "rename": {"apps.worker": "malar-market-digital-ledger-work"},
    },
    "a database name of 63 bytes": {"set": {"apps.malar-api.database.name": "a" * 63}},
    "a role's switch": {"set": {"hardening_unattended_upgrades": False}},
    "a schedule in all its forms": {"set": {"backup.schedule": "*/15 0-6,22 1 */2 1-5/2"}},
    "an ECDSA key without a comment": {
        "set": {
            "admins[0].ssh_keys[0]": "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLs1kc"
            "B1Ubr5Ssow7s8/FuB7rYh8eJ6mH7fzuxUzcLQg1BRVLMO2qoAPt+fFIHGXob0gw+Cnr5jYf7x5VWLLpQ0="
        }
    },
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_unusual_and_right_passes(name: str) -> None:
    refused = found("one_droplet", **SOUND[name])
    assert refused == [], report(refused)


def test_several_app_hosts_and_proxies_pass() -> None:
    base = BASES["three_droplets"]
    extra = {"ansible_host": "164.92.130.10", "private_address": "10.114.0.5"}
    changed = mutate(
        base, {"set": {"hosts.app2": extra, "groups.app": ["app1", "app2"], "groups.proxy": ["web1", "app2"]}}
    )
    assert problems(inventory(changed)) == []


def test_all_problems_are_told_at_once() -> None:
    """One of each file, in one inventory: as many problems as mistakes, each at its path."""
    chosen = [
        next(case for case in CASES if case["id"] == name)
        for name in (
            "apps: a domain with an underscore",
            "apps: a health path without a slash",
            "processes: changeme for a secret",
            "globals: a schedule of four fields",
            "hosts: an address left from the template",
        )
    ]
    merged = {"set": {path: value for case in chosen for path, value in case["set"].items()}}
    assert {problem.place for problem in found("one_droplet", **merged)} == {case["path"] for case in chosen}


def test_a_problem_that_all_hosts_share_is_told_once_and_without_hosts() -> None:
    refused = found("three_droplets", set={"acme_email": "nobody"})
    assert [problem.place for problem in refused] == ["acme_email"]


def test_a_value_of_any_shape_anywhere_breaks_nothing() -> None:
    """The checks across apps meet values that the checks of shape have refused: they must cope with all of them."""
    shapes: list[Any] = [
        None,
        True,
        7,
        1.5,
        "",
        "text",
        [],
        [None],
        [[]],
        {},
        {"a": {"b": []}},
        {1: 2},
        Unresolved("x"),
    ]

    def paths(value: Any, above: str) -> list[str]:
        if isinstance(value, dict):
            return [above] + [path for key, entry in value.items() for path in paths(entry, f"{above}.{key}")]
        if isinstance(value, list):
            return [above] + [path for index, entry in enumerate(value) for path in paths(entry, f"{above}[{index}]")]
        return [above]

    for name, value in BASES["one_droplet"]["vars"].items():
        for path in paths(value, name):
            for shape in shapes:
                report(found("one_droplet", set={path: shape}))
    for shape in shapes:
        report(found("one_droplet", set={"hosts.web1.ansible_host": shape, "hosts.web1.private_address": shape}))
        report(found("one_droplet", set={"hardening_ssh_port": shape, "hardening_firewall_rules": shape}))


def test_no_secret_is_shown_whatever_is_wrong_with_it() -> None:
    base = BASES["one_droplet"]["vars"]
    secrets = [
        "apps.malar-api.env.SECRET_KEY",
        "apps.malar-api.database.password",
        "backup.password",
        "backup.s3.secret_key",
        "backup.s3.access_key",
        "backup.webhook",
    ]
    assert base["backup"]["webhook"]
    for path in secrets:
        for value in ("Qz9!", ["Qz9!"], {"Qz9!": "Qz9!-value"}, "Qz9!\nQz9!", "your-Qz9!", 6174):
            text = report(found("one_droplet", set={path: value}))
            assert path in text
            assert "Qz9!" not in text and "6174" not in text
