"""Who listens where and for whom, on one machine and on several, and what the firewall opens for that."""

from __future__ import annotations

from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan

from tests.unit.plan_cases import APPS, GROWN, ONE, PORT, THREE, app, site


def test_one_machine_talks_over_the_loopback_and_opens_the_web_ports_alone() -> None:
    planned = plan(APPS, ONE, "web1")
    assert site(APPS, ONE, "web1", "malar-api")["proxy"]["upstreams"] == [f"127.0.0.1:{PORT}"]
    assert planned["postgresql_listen_addresses"] == ["localhost"]
    assert planned["postgresql_clients"] == [
        {"database": "malar_api", "role": "malar_api", "addresses": ["127.0.0.1/32"]}
    ]
    assert [(rule["port"], rule.get("sources")) for rule in planned["hardening_contributed_firewall_rules"]] == [
        (80, None),
        (443, None),
    ]
    assert app(ONE, "web1")["address"] == "127.0.0.1"


def test_three_machines_use_private_addresses_and_open_ports_to_each_other_alone() -> None:
    web, server, database = (plan(APPS, THREE, host) for host in ("web1", "app1", "db1"))
    assert site(APPS, THREE, "web1", "malar-api")["proxy"]["upstreams"] == [f"10.0.0.2:{PORT}"]
    assert app(THREE, "app1")["address"] == app(THREE, "app1")["env"]["HOST"] == "10.0.0.2"
    assert server["hardening_contributed_firewall_rules"] == [
        {"name": "malar-api", "port": port, "protocol": "tcp", "sources": ["10.0.0.1/32"]} for port in (PORT, PORT + 1)
    ]
    assert database["hardening_contributed_firewall_rules"] == [
        {"name": "postgresql", "port": 5432, "protocol": "tcp", "sources": ["10.0.0.2/32"]}
    ]
    assert database["postgresql_listen_addresses"] == ["localhost", "10.0.0.3"]
    assert database["postgresql_clients"][0]["addresses"] == ["10.0.0.2/32"]
    assert [rule["port"] for rule in web["hardening_contributed_firewall_rules"]] == [80, 443]
    assert (web["postgresql_databases"], server["nginx_sites"], database["nginx_sites"]) == ([], [], [])


def test_several_app_hosts_are_several_upstreams_and_each_listens_where_every_proxy_finds_it() -> None:
    for proxy in GROWN.proxy:
        upstreams = site(APPS, GROWN, proxy, "malar-api")["proxy"]["upstreams"]
        assert upstreams == [f"{app(GROWN, host)['address']}:{PORT}" for host in GROWN.app]
    rules = plan(APPS, GROWN, "web2")["hardening_contributed_firewall_rules"]
    assert [rule.get("sources") for rule in rules if rule["name"] == "malar-api"] == [["10.0.0.1/32"]] * 2


def test_each_service_declares_its_addresses_and_sources_and_the_firewall_follows() -> None:
    web, server, database = (plan(APPS, THREE, host)["listens"] for host in ("web1", "app1", "db1"))
    assert [(row["port"], row["addresses"], row["sources"]) for row in web] == [
        (80, ["*"], []),
        (443, ["*"], []),
        (8082, ["127.0.0.1"], []),
    ]
    assert [(row["port"], row["addresses"], row["sources"]) for row in server] == [
        (PORT, ["10.0.0.2"], ["10.0.0.1/32"]),
        (PORT + 1, ["10.0.0.2"], ["10.0.0.1/32"]),
    ]
    assert [(row["name"], row["addresses"], row["sources"]) for row in database] == [
        ("postgresql", ["localhost", "10.0.0.3"], ["10.0.0.2/32"])
    ]
    inside = [row["port"] for row in plan(APPS, ONE, "web1")["listens"] if row["addresses"] != ["*"]]
    assert inside == [8082, PORT, PORT + 1, 5432]


def test_what_traefik_needs_beside_the_web_is_for_the_host_alone() -> None:
    planned = plan(APPS, ONE, "web1", "traefik")
    inside = [(row["name"], row["port"]) for row in planned["listens"] if row["addresses"] == ["127.0.0.1"]]
    assert inside == [("traefik-metrics", 8082), ("traefik-files", 8081), ("malar-api", PORT), ("malar-api", PORT + 1)]
    nginx = plan(APPS, ONE, "web1")
    assert planned["hardening_contributed_firewall_rules"] == nginx["hardening_contributed_firewall_rules"]
    assert planned["nginx_sites"] == nginx["nginx_sites"]


def test_http3_opens_its_port_of_udp_on_the_proxies_alone() -> None:
    web = plan(APPS, THREE, "web1", http3=True)["hardening_contributed_firewall_rules"]
    assert {"name": "http3", "port": 443, "protocol": "udp"} in web
    server = plan(APPS, THREE, "app1", http3=True)["hardening_contributed_firewall_rules"]
    assert "udp" not in [rule["protocol"] for rule in server]
