"""The wiring, evaluated by Ansible's own templar for inventories as users write them."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.shipshape.droplet.plugins.plugin_utils.fields import WIRED

ROOT = Path(__file__).parents[2]
WIRING = ROOT / "playbooks" / "vars" / "wiring.yml"
ROLES = {path.parts[-3]: path for path in ROOT.glob("roles/*/meta/argument_specs.yml")}
INPUTS: dict[str, Any] = {
    name: template for name, template in yaml.safe_load(WIRING.read_text()).items() if not name.startswith("shipshape_")
}
INVENTORY = """
all:
  children:
    proxy: {hosts: {web1: {ansible_host: 10.0.0.1}}}
    app: {hosts: {app1: {ansible_host: 198.51.100.2, private_address: 10.0.0.2}}}
    database: {hosts: {db1: {ansible_host: 10.0.0.3}}}
  vars:
    acme_email: ops@malar.in
    admins: [{name: deploy, ssh_keys: [ssh-ed25519 AAAA]}]
    where: malar.in
    postgresql_databases: [{name: reports, owner: reports}]
    postgresql_listen_addresses: [localhost, 10.8.0.1]
    backup:
      s3: {endpoint: "https://s3.test", bucket: b, access_key: a, secret_key: s}
      password: p
      keep: {daily: 30}
      recovery_days: 7
    apps:
      api:
        type: python
        source: {git: "https://git.malar.in/x.git"}
        command: uvicorn a:b --host $HOST --port $PORT
        domains: ["api.{{ where }}"]
        health: /health
        database: {}
        env: {SECRET_KEY: "{{ vault_that_is_nowhere }}"}
      web: {type: static, source: {git: "https://git.malar.in/x.git"}, domains: ["{{ where }}"]}
"""


class Wired:
    """The variables of one host with the wiring in force, as a play with `vars_files` has them."""

    roles: tuple[str, ...] = ("nginx", "traefik", "postgresql", "pgbackrest")

    def __init__(self, directory: Path, host: str, **extra: Any) -> None:
        (directory / "hosts.yml").write_text(INVENTORY)
        self.read([directory / "hosts.yml"], host, extra)

    def read(self, sources: list[Path], host: str, extra: dict[str, Any]) -> None:
        self.loader = DataLoader()
        inventory = InventoryManager(self.loader, [str(source) for source in sources])
        manager = VariableManager(self.loader, inventory)
        self.variables = dict(manager.get_vars(host=inventory.get_host(host)))
        self.variables["hostvars"] = HostVars(inventory, manager, self.loader)
        # Of the role whose exports the wiring hands on; a play that imports it sees them.
        defaults, fixed = (
            {
                name: value
                for role in self.roles
                for name, value in self.loader.load_from_file(
                    str(ROOT / "roles" / role / part / "main.yml"), trusted_as_template=True
                ).items()
            }
            for part in ("defaults", "vars")
        )
        self.variables = {**defaults, **self.variables, **fixed}
        self.variables.update(self.loader.load_from_file(str(WIRING), trusted_as_template=True))
        self.variables.update(extra)

    def __getitem__(self, name: str) -> Any:
        return Templar(self.loader, self.variables).template(trust_as_template(f"{{{{ {name} }}}}"))


def test_every_input_follows_from_the_topology(tmp_path: Path) -> None:
    web, app, database = (Wired(tmp_path, host) for host in ("web1", "app1", "db1"))
    assert [site["domains"] for site in web["nginx_sites"]] == [["api.malar.in"], ["malar.in"]]
    assert web["nginx_sites"][0]["proxy"]["upstreams"][0].startswith("10.0.0.2:")
    assert [certificate["name"] for certificate in web["certbot_certificates"]] == ["api", "web"]
    assert database["postgresql_clients"] == [{"database": "api", "role": "api", "addresses": ["10.0.0.2/32"]}]
    assert app["shipshape_database_logins"][0]["host"] == "db1"
    assert app["nginx_sites"] == [] and web["app_list"][0]["name"] == "web"
    assert (web["certbot_email"], web["certbot_staging"]) == ("ops@malar.in", False)
    assert web["hardening_admins"] == [{"name": "deploy", "ssh_keys": ["ssh-ed25519 AAAA"]}]
    assert web["backup_keep"] == {"daily": 30} and web["backup_schedule"] == "0 2 * * *"


def test_what_the_user_says_under_the_roles_own_name_is_added_and_backed_up(tmp_path: Path) -> None:
    database = Wired(tmp_path, "db1")
    assert [row["name"] for row in database["postgresql_databases"]] == ["api", "reports"]
    assert database["postgresql_listen_addresses"] == ["localhost", "10.0.0.3", "10.8.0.1"]
    assert database["backup_databases"] == ["api", "reports"]
    assert Wired(tmp_path, "web1")["backup_databases"] == []


def test_a_restore_to_any_moment_is_the_database_hosts_alone(tmp_path: Path) -> None:
    own = {"postgresql_settings": {"archive_timeout": 30, "work_mem": "8MB"}}
    given: dict[str, Any] = {"vault_that_is_nowhere": "x", "shipshape_own": own}
    database, app = (Wired(tmp_path, host, **given) for host in ("db1", "app1"))
    assert (database["shipshape_has"]["pgbackrest"], app["shipshape_has"]["pgbackrest"]) == (True, False)
    assert app["postgresql_settings"] == own["postgresql_settings"]
    settings = database["postgresql_settings"]
    assert (settings["archive_mode"], settings["archive_timeout"], settings["work_mem"]) == ("on", 30, "8MB")


def test_what_is_at_a_path_is_reported_there_and_its_domain_looked_after_once(tmp_path: Path) -> None:
    source = {"git": "https://git.malar.in/x.git"}
    apps = {
        "web": {"type": "static", "source": source, "domains": ["malar.in"]},
        "docs": {"type": "static", "source": source, "domains": ["malar.in/docs"], "strip": True},
        "far": {"type": "route", "url": "https://x.malar.in", "domains": ["far.in/x", "malar.in/x"]},
    }
    web = Wired(tmp_path, "web1", apps=apps)

    def evaluate(text: str) -> Any:
        return web[text.strip().removeprefix("{{").removesuffix("}}")]

    report = yaml.safe_load((ROOT / "playbooks/tasks/report.yml").read_text())[0]["shipshape.droplet.droplet_report"]
    assert evaluate(report["urls"]) == ["https://malar.in", "https://malar.in/docs", "https://far.in/x"]
    tls = "/etc/shipshape/tls"
    assert evaluate(report["certificates"]) == [f"{tls}/web/fullchain.pem", f"{tls}/far.in/fullchain.pem"]
    assert web["shipshape_health_sites"] == ["malar.in", "far.in"]


def test_a_pool_brings_pgbouncer_its_way_to_look_up_logins_and_its_port(tmp_path: Path) -> None:
    pool = {"database": "reports", "role": "reports", "size": 5}
    database = Wired(tmp_path, "db1", pgbouncer_export_hba_lines=["local all pgbouncer peer"])
    assert database["shipshape_has"]["pgbouncer"] is False and database["postgresql_hba_lines"] == []
    database.variables["shipshape_own"] = {"pgbouncer_pools": [pool], "postgresql_hba_lines": ["local all me peer"]}
    assert database["shipshape_has"]["pgbouncer"] is True and database["pgbouncer_pools"] == [pool]
    assert database["postgresql_hba_lines"] == ["local all pgbouncer peer", "local all me peer"]


def test_only_a_proxy_bans_for_the_proxy(tmp_path: Path) -> None:
    jails = Wired(tmp_path, "web1")["hardening_contributed_jails"]
    assert [jail["name"] for jail in jails] == ["nginx-http-auth", "nginx-limit-req", "nginx-probes"]
    assert Wired(tmp_path, "db1")["hardening_contributed_jails"] == []


class ByTraefik(Wired):
    """The same inventory with the one word changed, and what else is given."""

    def __init__(self, directory: Path, host: str, own: dict[str, Any] | None = None) -> None:
        super().__init__(directory, host)
        given = {"proxy": "traefik", **(own or {})}
        self.variables.update({name: value for name, value in given.items() if name == "proxy"})
        self.variables["shipshape_own"] = given


def test_one_word_makes_traefik_the_proxy(tmp_path: Path) -> None:
    nginx, traefik = Wired(tmp_path, "web1"), ByTraefik(tmp_path, "web1")
    assert traefik["shipshape_sites"] == nginx["shipshape_sites"] != []
    has = traefik["shipshape_has"]
    assert (has["nginx"], has["traefik"], has["certbot"]) == (False, True, True)
    assert (traefik["certbot_reload_command"], nginx["certbot_reload_command"]) == (
        "systemctl reload traefik.service",
        "systemctl reload nginx.service",
    )
    assert traefik["traefik_acme_webroot"] == traefik["certbot_webroot"] == "/var/www/acme"
    jails = [jail["name"] for jail in traefik["hardening_contributed_jails"]]
    assert jails == ["traefik-limit", "traefik-auth", "traefik-probes"]
    # No host has a proxy that is not in its group.
    assert not any(ByTraefik(tmp_path, "db1")["shipshape_has"][name] for name in ("nginx", "traefik", "certbot"))
    for name in ("hsts", "headers", "tls_policy", "max_body_size", "trusted_proxies"):
        assert traefik[f"traefik_{name}"] == nginx[f"nginx_{name}"]


def test_with_an_account_of_its_own_traefik_gets_the_certificates(tmp_path: Path) -> None:
    own = ByTraefik(tmp_path, "web1", {"traefik_acme_email": "ops@malar.in"})
    assert own["shipshape_own_acme"] is True
    assert own["shipshape_has"]["certbot"] is False
    # Nothing on the disk to compare with, and nobody who asks for a webroot.
    assert (own["shipshape_certified_sites"], own["traefik_acme_webroot"]) == ([], "")
    assert "/var/lib/traefik" in own["backup_paths"] and "/etc/letsencrypt" not in own["backup_paths"]


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({"RequestPath": "/.env"}, True),
        ({"RequestPath": "/blog/WP-Login.php?x=1"}, True),
        ({"RequestPath": "/.git/config", "DownstreamStatus": 403}, True),
        ({"RequestPath": "/wp-login.php", "DownstreamStatus": 200}, False),
        ({"RequestPath": "/environment"}, False),
        ({"RequestPath": "/api/orders/7"}, False),
        ({"RequestPath": r"/\",\"ClientHost\":\"192.0.2.9\"", "ClientHost": "198.51.100.1"}, False),
        ({"RequestPath": r"/.env\",\"ClientHost\":\"192.0.2.9\"", "ClientHost": "198.51.100.1"}, True),
        ({"DownstreamStatus": 429, "RequestPath": "/"}, True),
        ({"RequestPath": r"/\"DownstreamStatus\":429,"}, False),
        ({"ClientUsername": "ops", "DownstreamStatus": 401, "OriginStatus": 0}, True),
        ({"ClientUsername": r"o\"x", "DownstreamStatus": 401, "OriginStatus": 0}, True),
        # What a browser asks before it knows that a password is needed, and what the application refuses by itself.
        ({"ClientUsername": "", "DownstreamStatus": 401, "OriginStatus": 0}, False),
        ({"ClientUsername": "ops", "DownstreamStatus": 401, "OriginStatus": 401}, False),
    ],
)
def test_a_line_of_traefiks_log_counts_as_one_of_nginxs_does(
    said: dict[str, Any], counts: bool, tmp_path: Path
) -> None:
    line: dict[str, Any] = {
        "ClientAddr": "203.0.113.5:1", "ClientHost": "203.0.113.5", "ClientPort": "1", "ClientUsername": "-",
        "DownstreamContentSize": 19, "DownstreamStatus": 404, "Duration": 80490, "GzipRatio": 0.5, "OriginStatus": 404,
        "RequestMethod": "GET", "RequestPath": "/", "RequestPort": "-", "StartUTC": "2026-11-25T13:31:02.3Z",
    }  # fmt: skip
    line.update(said)
    text = (
        "{" + ",".join(f'"{name}":' + (f'"{v}"' if isinstance(v, str) else str(v)) for name, v in line.items()) + ",}"
    )
    jails = ByTraefik(tmp_path, "web1")["hardening_contributed_jails"]
    patterns = [
        pattern.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)") for jail in jails for pattern in jail["patterns"]
    ]
    found = [match["address"] for pattern in patterns if (match := re.search(pattern, text))]
    assert found == ([line["ClientHost"]] if counts else [])


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({"uri": "/.env"}, True),
        ({"uri": "/blog/WP-Login.php?x=1"}, True),
        ({"uri": "/.git/config", "status": 403}, True),
        ({"uri": "", "method": "", "protocol": "", "status": 400}, True),
        ({"uri": "/wp-login.php", "status": 200}, False),
        ({"uri": "/api/orders/7"}, False),
        ({"uri": "/environment"}, False),
        ({"uri": "/.well-known/security.txt"}, False),
        # Whoever writes a whole line into an address gets its quotes escaped, and is not taken for another.
        ({"uri": r"/\",\"client\":\"192.0.2.9\"", "client": "198.51.100.1"}, False),
        ({"uri": r"/.env\",\"client\":\"192.0.2.9\"", "client": "198.51.100.1"}, True),
    ],
)
def test_only_a_request_for_a_hole_that_is_not_here_counts_as_a_probe(
    said: dict[str, Any], counts: bool, tmp_path: Path
) -> None:
    jail = Wired(tmp_path, "web1")["hardening_contributed_jails"][-1]
    line: dict[str, Any] = {
        "client": "203.0.113.5",
        "host": "shop.test",
        "server": "shop.test",
        "method": "GET",
        "protocol": "HTTP/2.0",
    }
    line = {**line, "status": 404, **said}
    order = ("client", "host", "server", "method", "uri", "protocol")
    text = "," + ",".join(f'"{name}":"{line[name]}"' for name in order) + f',"status":{line["status"]},"bytes":0'
    patterns = [pattern.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)") for pattern in jail["patterns"]]
    found = [match["address"] for pattern in patterns if (match := re.search(pattern, text))]
    assert found == ([line["client"]] if counts else [])


def test_a_secret_that_is_nowhere_concerns_only_who_needs_it(tmp_path: Path) -> None:
    app = Wired(tmp_path, "app1")
    assert app["hardening_contributed_firewall_rules"][0]["name"] == "api"
    with pytest.raises(Exception, match="vault_that_is_nowhere"):
        str(app["app_list"])


def test_passwords_and_a_chosen_app_reach_the_list_of_apps(tmp_path: Path) -> None:
    given = {"vault_that_is_nowhere": "x", "shipshape_database_read": {"secrets": {"api": "p/w"}}}
    (row,) = Wired(tmp_path, "app1", **given)["app_list"]
    assert row["env"]["DATABASE_URL"] == "postgresql://api:p%2Fw@10.0.0.3:5432/api"
    assert Wired(tmp_path, "app1", **given, app="web")["app_list"] == []
    # A loop over the apps has a variable `app` that is no name.
    assert len(Wired(tmp_path, "app1", **given, app=row)["app_list"]) == 1
    with pytest.raises(Exception, match="no app 'wep'"):
        str(Wired(tmp_path, "app1", **given, app="wep")["app_list"])


def test_a_primary_is_told_of_its_replicas_and_of_whom_to_tell_and_nobody_else_is(tmp_path: Path) -> None:
    peers: dict[str, Any] = {"peers": [{"name": "db-2", "address": "10.0.0.4"}]}
    written = Wired(tmp_path, "db1", postgresql_replication=peers)["__postgresql_watched"]
    assert (written["mode"], written["secret"]) == ("0600", True)
    assert json.loads(written["content"]) == {
        "host": "db1", "replicas": {"db-2": "shipshape_db_2"}, "webhook": "", "mail": "",
    }  # fmt: skip
    for none in ({}, {**peers, "primary": "db-2"}):
        assert Wired(tmp_path, "db1", postgresql_replication=none)["__postgresql_watched"]["state"] == "absent"


def test_services_that_the_inventory_has_no_more_end_when_all_apps_have_changed_over(tmp_path: Path) -> None:
    services = "/etc/pgbouncer/shipshape.ini /etc/redis/redis-cache.conf"
    seen: dict[str, Any] = {"shipshape_login": {"services": services}, "ansible_play_hosts": ["db1", "app1", "web1"]}

    def left(**changes: Any) -> dict[str, bool]:
        return dict(
            Wired(tmp_path, "db1", **{"redis_instances": [], "pgbouncer_pools": [], **seen, **changes})[
                "shipshape_left"
            ]
        )

    none = {"pgbouncer": False, "redis": False}
    assert left() == {"pgbouncer": True, "redis": True}
    assert left(shipshape_login={"services": ""}) == none
    assert left(ansible_play_hosts=["db1", "web1"]) == none and left(app="api") == none
    assert left(redis_instances=[{"name": "cache"}], pgbouncer_pools=[{"database": "api"}]) == none


def test_without_apps_and_globals_there_is_nothing_to_do_and_nothing_fails(tmp_path: Path) -> None:
    empty = Wired(tmp_path, "web1")
    for name in ("apps", "acme_email", "admins", "backup"):
        del empty.variables[name]
    # These are undefined, so that a backup that was not asked for cannot be set up by halves.
    asked_for = {"backup_s3", "backup_password", "pgbackrest_s3", "pgbackrest_password", "pgbackrest_recovery_days"}
    names = [name for name in INPUTS if name not in asked_for]
    assert {name: empty[name] for name in names}["nginx_sites"] == []


def test_no_wired_variable_costs_more_than_80_plain_templates(tmp_path: Path) -> None:
    """That is 30 ms where a task takes 250. A ratio of processor time, because machines and their load differ."""
    wired = Wired(
        tmp_path,
        "db1",
        vault_that_is_nowhere="x",
        shipshape_database_read={"secrets": {"api": "p"}},
        plain=trust_as_template("{{ 1 + 1 }}"),
    )

    def cost(name: str) -> float:
        start = time.process_time()
        str(wired[name])
        return time.process_time() - start

    for name in [*INPUTS, "shipshape_plan", "shipshape_database_logins"]:
        cost(name)
        pairs = [(cost(name), min(cost("plain") for _ in range(3))) for _ in range(10)]
        ratio = min(row[0] for row in pairs) / min(row[1] for row in pairs)
        assert ratio < 80, f"{name}: {ratio:.0f} times a plain template"


def test_the_wiring_has_at_most_ten_lines_a_role() -> None:
    lines = [line for line in WIRING.read_text().splitlines() if line and not line.startswith(("#", "---"))]
    role = ""
    counts: Counter[str] = Counter()
    for line in lines:
        if match := re.match(r"([a-z]+)_\w+:", line):
            role = match[1]
        counts[role] += role != "shipshape"
    assert counts["nginx"] and max(counts.values()) <= 10, counts


def test_what_is_wired_and_not_added_to_is_refused_in_an_inventory() -> None:
    """The validation names each variable whose value in an inventory would not be read."""
    shadowed = {name for name, template in INPUTS.items() if f"shipshape_own.{name}" not in str(template)}
    assert shadowed == set(WIRED)


@pytest.mark.parametrize("name", INPUTS)
def test_each_wired_variable_is_an_input_of_its_role(name: str) -> None:
    role = name.split("_")[0]
    specs = yaml.safe_load(ROLES[role].read_text())["argument_specs"]
    assert name in {option for spec in specs.values() for option in spec.get("options", {})}


@pytest.mark.parametrize(
    "name",
    ["backup_keep", "backup_schedule", "backup_webhook", "backup_drill_schedule", "backup_mail", "certbot_directory",
     "certbot_staging", "certbot_webroot", "nginx_acme_webroot", "postgresql_listen_addresses",
     "pgbackrest_drill_schedule", "pgbackrest_full_schedule", "pgbackrest_differential_schedule", "pgbackrest_mail"],
)  # fmt: skip
def test_the_wirings_defaults_are_the_roles_defaults(name: str, tmp_path: Path) -> None:
    defaults = yaml.safe_load((ROLES[name.split("_")[0]].parents[1] / "defaults" / "main.yml").read_text())
    bare = Wired(tmp_path, "web1")
    for given in ("apps", "acme_email", "admins", "backup", "postgresql_listen_addresses", "postgresql_databases"):
        bare.variables.pop(given, None)
    bare.variables[name] = bare.loader.load_from_file(str(WIRING), trusted_as_template=True)[name]
    bare.variables["shipshape_own"] = {}
    assert bare[name] == defaults[name]
