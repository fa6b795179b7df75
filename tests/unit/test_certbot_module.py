"""The modules that make certificates, run as Ansible runs them, with certbot played by a small program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DIRECTORY = "https://ca.test/directory"

# It issues what it is asked for as certbot does: live/<name> and renewal/<name>.conf. A name with 'refused' is refused.
CERTBOT = """#!/bin/sh
echo "$@" >> {log}
while [ $# -gt 0 ]; do
  case $1 in
    --authenticator) proof=$2;; --dns-*-credentials) credentials="$2";;
    --cert-name) name=$2;; --config-dir) config=$2;; --server) server=$2;;
    --domain) names="$names${{names:+,}}DNS:$2";;
  esac
  shift
done
case $names in *refused*) echo "  Type:   unauthorized" >&2; exit 1;; esac
mkdir -p $config/live/$name $config/renewal
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=ca \\
  -addext subjectAltName=$names -keyout $config/live/$name/privkey.pem -out $config/live/$name/fullchain.pem 2>/dev/null
printf 'server = %s\\nauthenticator = %s\\n' "$server" "${{proof:-webroot}}" > $config/renewal/$name.conf
[ -z "$credentials" ] || echo "dns_digitalocean_credentials = $credentials" >> $config/renewal/$name.conf
"""


class Droplet:
    """A directory tree for a droplet and a certbot that notes what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "certbot.log"
        (root / "bin").mkdir()
        (root / "bin/certbot").write_text(CERTBOT.format(log=self.log))
        (root / "bin/certbot").chmod(0o755)

    def run(self, name: str, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
        program = (
            "import sys; from ansible.plugins.loader import init_plugin_loader; init_plugin_loader([sys.argv[1]]);"
            "from ansible.module_utils.testing import patch_module_args; import importlib, json;"
            "module = importlib.import_module('ansible_collections.shipshape.droplet.plugins.modules.' + sys.argv[2]);"
            "context = patch_module_args(json.loads(sys.argv[3])); context.__enter__(); module.main()"
        )
        given = json.dumps({**arguments, "_ansible_check_mode": check, "_ansible_remote_tmp": str(self.root)})
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT / "collections"), name, given],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(result, dict)
        return result

    def certificates(self, *specs: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        arguments = {
            "certificates": list(specs), "directory": DIRECTORY, "webroot": str(self.root / "web"),
            "links": str(self.root / "tls"), "config": str(self.root / "etc"), "preflight": False, "port": 1, **more,
        }  # fmt: skip
        return self.run("certbot_certificates", arguments, check)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def droplet(tmp_path: Path) -> Droplet:
    return Droplet(tmp_path)


SHOP = {"name": "shop", "domains": ["shop.test", "www.shop.test"]}


def test_check_mode_on_a_bare_host_says_what_it_would_issue_and_does_nothing(droplet: Droplet) -> None:
    result = droplet.certificates(SHOP, check=True)
    assert result["changed"] and not result.get("failed")
    assert result["diff"][0]["before"] == "none\n"
    assert result["certificates"][0]["action"] == "there is none"
    assert droplet.asked == [] and not (droplet.root / "tls").exists() and not (droplet.root / "web").exists()


def test_it_is_issued_linked_and_then_left_alone(droplet: Droplet) -> None:
    result = droplet.certificates(SHOP)
    assert result["changed"] and not result.get("failed"), result
    assert os.readlink(droplet.root / "tls/shop") == str(droplet.root / "etc/live/shop")
    assert (droplet.root / "tls/shop/fullchain.pem").exists()
    assert "--key-type ecdsa" in droplet.asked[0] and "--register-unsafely-without-email" in droplet.asked[0]
    assert "--force-renewal" not in droplet.asked[0]
    for check in (True, False):
        again = droplet.certificates(SHOP, check=check)
        assert not again["changed"]
    assert len(droplet.asked) == 1
    assert again["certificates"][0]["domains"] == ["shop.test", "www.shop.test"] and again["certificates"][0]["expires"]


@pytest.mark.parametrize(
    ("spec", "more", "why"),
    [
        ({"name": "shop", "domains": ["shop.test"]}, {}, "it is for shop.test, www.shop.test"),
        (
            {"name": "shop", "domains": ["shop.test", "www.shop.test", "new.test"]},
            {},
            "it is for shop.test, www.shop.test",
        ),
        (SHOP, {"directory": "https://other.test/directory"}, "it is from " + DIRECTORY),
    ],
)
def test_other_names_or_another_authority_make_it_ask_again(
    droplet: Droplet, spec: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    droplet.certificates(SHOP)
    result = droplet.certificates(spec, **more)
    assert result["certificates"][0]["action"] == why and not result.get("failed")
    assert "--force-renewal --renew-with-new-domains" in droplet.asked[1]
    assert not droplet.certificates(spec, **more)["changed"]


@pytest.mark.parametrize(("days", "why"), [("-1", "it ended on"), ("15", "was not renewed"), ("40", "")])
def test_one_that_has_ended_or_was_not_renewed_in_time_is_asked_for(droplet: Droplet, days: str, why: str) -> None:
    droplet.certificates(SHOP)
    live = droplet.root / "etc/live/shop"
    start, end = f"{90 - int(days)} days ago", f"{days} days"
    stamps = [
        subprocess.run(
            ["date", "-u", "-d", when, "+%Y%m%d%H%M%SZ"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for when in (start, end)
    ]
    (droplet.root / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={droplet.root}/index\nserial={droplet.root}/serial\nnew_certs_dir={droplet.root}\n"
        "default_md=sha256\npolicy=p\nunique_subject=no\ncopy_extensions=copy\n[p]\ncommonName=supplied\n"
    )
    (droplet.root / "index").write_text("")
    (droplet.root / "serial").write_text("1000\n")
    subprocess.run(
        ["openssl", "req", "-new", "-key", live / "privkey.pem", "-subj", "/CN=ca", "-out", droplet.root / "csr",
         "-addext", "subjectAltName=DNS:shop.test,DNS:www.shop.test"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "ca", "-batch", "-notext", "-config", droplet.root / "ca.cnf", "-selfsign",
         "-keyfile", live / "privkey.pem", "-in", droplet.root / "csr",
         "-out", live / "fullchain.pem", "-startdate", stamps[0], "-enddate", stamps[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    result = droplet.certificates(SHOP)
    assert why in result["certificates"][0]["action"]
    assert result["changed"] is bool(why) and not result.get("failed")
    assert len(droplet.asked) == (2 if why else 1)


def test_one_that_fails_does_not_hide_the_others(droplet: Droplet) -> None:
    result = droplet.certificates({"name": "bad", "domains": ["refused.test"]}, SHOP)
    assert result["failed"]
    assert "1 of 2 certificates could not be issued" in result["msg"]
    assert "bad: " in result["msg"] and "Another server answered" in result["msg"]
    bad, shop = result["certificates"]
    assert bad["error"] and not bad["expires"]
    assert shop["expires"] and not shop["error"]
    assert (droplet.root / "tls/shop/fullchain.pem").exists()


def test_a_name_that_leads_elsewhere_is_not_put_before_the_authority(droplet: Droplet) -> None:
    result = droplet.certificates({"name": "far", "domains": ["far.invalid"]}, preflight=True)
    assert result["failed"] and "DNS has no address for far.invalid" in result["msg"]
    assert droplet.asked == []


def test_a_placeholder_is_replaced_by_the_change_of_one_link(droplet: Droplet) -> None:
    tls = droplet.root / "tls"
    placeholder = {"certificate": f"{tls}/shop/fullchain.pem", "key": f"{tls}/shop/privkey.pem", "names": ["shop.test"]}
    assert droplet.run("web_server", {"certificates": [placeholder], "unit": "nginx.service"})["changed"]
    assert os.readlink(tls / "shop") == "shop.self-signed"
    droplet.certificates(SHOP)
    assert os.readlink(tls / "shop") == str(droplet.root / "etc/live/shop")
    # And the placeholder does not come back.
    result = droplet.run("web_server", {"certificates": [placeholder], "unit": "nginx.service"})
    assert not result["changed"] and not result["certificates"][0]["self_signed"]


def test_a_directory_of_somebody_else_is_not_replaced(droplet: Droplet) -> None:
    (droplet.root / "tls/shop").mkdir(parents=True)
    (droplet.root / "tls/shop/fullchain.pem").write_text("mine")
    result = droplet.certificates(SHOP)
    assert result["failed"] and "move the directory away" in result["msg"]
    assert (droplet.root / "tls/shop/fullchain.pem").read_text() == "mine"


class TestDns:
    """Names that are proven by records at a provider."""

    WILD = {"name": "wild", "domains": ["shop.test", "*.shop.test"]}

    def run(
        self, droplet: Droplet, *specs: dict[str, Any], provider: str = "digitalocean", **more: Any
    ) -> dict[str, Any]:
        credentials = str(droplet.root / "etc/dns.ini")
        if provider and not more.get("check"):
            (droplet.root / "etc").mkdir(exist_ok=True)
            (droplet.root / "etc/dns.ini").write_text("dns_digitalocean_token = t0ken\n")
        return droplet.certificates(*specs, dns_provider=provider, dns_credentials=credentials, **more)

    def test_certbot_is_told_where_the_token_is_and_not_the_token(self, droplet: Droplet) -> None:
        result = self.run(droplet, self.WILD, dns_propagation_seconds=5)
        assert result["changed"] and not result.get("failed"), result
        asked = droplet.asked[0]
        assert "--authenticator dns-digitalocean --preferred-challenges dns" in asked and "--webroot" not in asked
        assert f"--dns-digitalocean-credentials {droplet.root}/etc/dns.ini" in asked and "t0ken" not in asked
        assert "--dns-digitalocean-propagation-seconds 5" in asked and "--domain *.shop.test" in asked
        assert not self.run(droplet, self.WILD)["changed"] and len(droplet.asked) == 1

    def test_another_proof_makes_it_ask_again_and_what_is_there_stays_until_then(self, droplet: Droplet) -> None:
        droplet.certificates(SHOP)
        foreseen = self.run(droplet, SHOP, check=True)
        assert foreseen["changed"] and foreseen["certificates"][0]["action"] == "it is proven over HTTP and not by DNS"
        result = self.run(droplet, SHOP)
        assert result["certificates"][0]["error"] == "" and len(droplet.asked) == 2
        assert "--force-renewal" in droplet.asked[1]
        assert not self.run(droplet, SHOP)["changed"]
        # And back: the credentials go when nothing is renewed by them any more.
        foreseen = self.run(droplet, SHOP, provider="", check=True)
        assert foreseen["certificates"][0]["action"] == "it is proven by DNS and not over HTTP"
        assert (droplet.root / "etc/dns.ini").exists()
        result = self.run(droplet, SHOP, provider="")
        assert result["changed"] and "--webroot" in droplet.asked[2]
        assert not (droplet.root / "etc/dns.ini").exists()
        assert not self.run(droplet, SHOP, provider="")["changed"]

    def test_credentials_stay_while_something_is_renewed_by_them(self, droplet: Droplet) -> None:
        refused = {"name": "bad", "domains": ["bad.test"]}
        self.run(droplet, SHOP, refused)
        result = self.run(droplet, SHOP, {"name": "bad", "domains": ["refused.test"]}, provider="")
        assert result["failed"] and (droplet.root / "etc/dns.ini").exists()
        # One that is declared no more is still renewed.
        self.run(droplet, SHOP, provider="")
        assert (droplet.root / "etc/dns.ini").exists()

    def test_one_that_somebody_has_proven_in_another_way_stays_over_http(self, droplet: Droplet) -> None:
        droplet.certificates(SHOP)
        note = droplet.root / "etc/renewal/shop.conf"
        note.write_text(note.read_text().replace("webroot", "nginx"))
        assert not droplet.certificates(SHOP)["changed"]

    def test_a_provider_that_cannot_be_asked_is_told_before_the_authority_is_asked(self, droplet: Droplet) -> None:
        # No name is resolved in this test: the API cannot be reached.
        environment = {"https_proxy": "http://127.0.0.1:1"}
        os.environ.update(environment)
        try:
            result = self.run(droplet, SHOP, self.WILD, preflight=True)
            assert result["failed"] and droplet.asked == []
            assert "shop, wild: DigitalOcean's API cannot be reached from this droplet" in result["msg"]
            assert "t0ken" not in json.dumps(result)
            # What is there is not in danger yet.
            self.run(droplet, SHOP)
            assert not self.run(droplet, SHOP, preflight=True).get("failed")
        finally:
            for name in environment:
                del os.environ[name]


class TestSelfSigned:
    """What the module web_server puts where there is none."""

    def make(self, droplet: Droplet, check: bool = False, **more: Any) -> dict[str, Any]:
        folder = droplet.root / "ssl/site"
        spec = {
            "certificate": f"{folder}/cert.pem",
            "key": f"{folder}/key.pem",
            "names": ["site.test", "203.0.113.7", "2001:DB8::1"],
        }
        options: dict[str, Any] = {key: more.pop(key) for key in ("days", "renew_days") if key in more}
        return droplet.run(
            "web_server", {"certificates": [{**spec, **more}], "unit": "nginx.service", **options}, check
        )

    def test_check_mode_is_truthful(self, droplet: Droplet) -> None:
        result = self.make(droplet, check=True)
        assert result["changed"] and result["certificates"][0]["expires"] == ""
        assert not (droplet.root / "ssl").exists()

    def test_names_and_addresses_are_in_it_and_the_key_is_for_root_only(self, droplet: Droplet) -> None:
        self.make(droplet)
        text = subprocess.run(
            ["openssl", "x509", "-in", droplet.root / "ssl/site/cert.pem", "-noout", "-text"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "DNS:site.test, IP Address:203.0.113.7, IP Address:2001:DB8:0:0:0:0:0:1" in text
        assert "prime256v1" in text and "CA:FALSE" in text
        assert (droplet.root / "ssl/site/key.pem").stat().st_mode & 0o777 == 0o600
        assert not self.make(droplet)["changed"]
        assert not self.make(droplet, check=True)["changed"]

    def test_ours_is_renewed_near_its_end_and_for_other_names_with_the_same_key(self, droplet: Droplet) -> None:
        self.make(droplet, days=30)
        key = (droplet.root / "ssl/site/key.pem").read_bytes()
        assert "it ends on" in self.make(droplet)["made"][0]
        assert "it is for" in self.make(droplet, names=["other.test"])["made"][0]
        assert (droplet.root / "ssl/site/key.pem").read_bytes() == key

    def test_what_somebody_else_put_there_stays_whatever_it_is_for(self, droplet: Droplet) -> None:
        folder = droplet.root / "ssl/site"
        folder.mkdir(parents=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=theirs", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        before = (folder / "cert.pem").read_bytes()
        result = self.make(droplet)
        assert not result["changed"] and not result["certificates"][0]["self_signed"]
        assert (folder / "cert.pem").read_bytes() == before

    def test_a_file_that_is_no_certificate_is_said_to_be_none(self, droplet: Droplet) -> None:
        (droplet.root / "ssl/site").mkdir(parents=True)
        (droplet.root / "ssl/site/cert.pem").write_text("hello")
        result = self.make(droplet)
        assert result["failed"] and "it is no certificate" in result["msg"]

    def test_a_run_cut_off_between_key_and_certificate_is_finished_by_the_next(self, droplet: Droplet) -> None:
        self.make(droplet)
        (droplet.root / "ssl/site.self-signed/cert.pem").unlink()
        key = (droplet.root / "ssl/site/key.pem").read_bytes()
        assert self.make(droplet)["changed"]
        assert (droplet.root / "ssl/site/key.pem").read_bytes() == key

    def test_a_link_to_a_certificate_that_was_deleted_is_made_good(self, droplet: Droplet) -> None:
        (droplet.root / "ssl").mkdir()
        (droplet.root / "ssl/site").symlink_to("/nonexistent/live/site")
        assert self.make(droplet)["changed"]
        assert (droplet.root / "ssl/site/cert.pem").exists()

    def test_a_name_that_would_change_the_request_is_refused(self, droplet: Droplet) -> None:
        result = self.make(droplet, names=["a.test, email:x@y"])
        assert result["failed"] and "neither a host name nor an address" in result["msg"]
