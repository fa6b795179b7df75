"""What the certbot role's variables and templates come to, without a host."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit.nginx_lab import trusted

ROLE = Path(__file__).parents[2] / "roles" / "certbot"
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


def template(text: str, overrides: dict[str, Any]) -> str:
    variables: dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        variables.update(trusted(yaml.safe_load((ROLE / folder / "main.yml").read_text())))
    templar = Templar(loader=DataLoader(), variables={**variables, **overrides})
    return str(templar.template(trust_as_template(text), overrides={"trim_blocks": True, "lstrip_blocks": True}))


@pytest.mark.parametrize(
    ("variables", "directory"),
    [
        ({}, PRODUCTION),
        ({"certbot_staging": True}, STAGING),
        ({"certbot_staging": "false"}, PRODUCTION),
        ({"certbot_directory": "https://ca.test/directory"}, "https://ca.test/directory"),
        ({"certbot_directory": "https://ca.test/directory", "certbot_staging": True}, "https://ca.test/directory"),
    ],
)
def test_the_staging_switch_is_for_lets_encrypt_only(variables: dict[str, Any], directory: str) -> None:
    assert template("{{ __certbot_effective_directory }}", variables) == directory


def test_renewal_is_at_midnight_and_noon_by_a_line_that_cron_understands() -> None:
    text = template((ROLE / "templates/cron.j2").read_text(), {"certbot_ca_bundle": "/etc/ssl/own.pem"})
    jobs = [line for line in text.splitlines() if re.match(r"\d", line)]
    assert len(jobs) == 1 and jobs[0].startswith("0 0,12 * * * root ")
    # Cron ends a command at a bare percent sign, and skips a last line without its end.
    assert "%" not in jobs[0] and text.endswith("\n")
    assert "REQUESTS_CA_BUNDLE=/etc/ssl/own.pem" in text.splitlines()
    assert "REQUESTS_CA_BUNDLE" not in template((ROLE / "templates/cron.j2").read_text(), {})


def test_the_plugin_of_a_dns_provider_comes_with_it() -> None:
    given = {"certbot_dns": {"provider": "digitalocean", "token": "t0ken"}}
    assert "python3-certbot-dns-digitalocean" in template("{{ certbot_export_packages }}", given)
    assert "dns" not in template("{{ certbot_export_packages }}", {})
    text = template((ROLE / "templates/dns.ini.j2").read_text(), given)
    assert "dns_digitalocean_token = t0ken" in text.splitlines()
    file = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__certbot_dns_files"][0]
    assert file["mode"] == "0600" and file["secret"]


@pytest.mark.parametrize(("first", "second", "code"), [("true", "true", 0), ("false", "true", 1), ("true", "false", 1)])
def test_the_deploy_hook_fails_when_the_web_server_is_not_reloaded(first: str, second: str, code: int) -> None:
    hook = template(
        (ROLE / "templates/deploy-hook.sh.j2").read_text(), {"certbot_reload_command": f"{first} && {second}"}
    )
    assert hook.startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-c", hook], check=False).returncode == code
