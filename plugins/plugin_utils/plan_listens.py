"""Who listens on which port of a host, for whom; and what the firewall lets in for that."""

from __future__ import annotations

from collections.abc import Sequence

from .names import host_network
from .plan_common import Apps, Row, ports_of, with_process
from .plan_postgresql import POSTGRESQL_PORT
from .topology import LOOPBACK, Topology

#: What a proxy needs of the loopback interface beside the ports of the web, unless the inventory moves them.
PROXY_PORTS = {
    "nginx": {"nginx-metrics": 8082},
    "traefik": {"traefik-metrics": 8082, "traefik-files": 8081},
}


def listens(
    apps: Apps,
    topology: Topology,
    host: str,
    inputs: Row,
    proxy: str,
    http3: bool,
    pooler: int,
) -> list[Row]:
    """What the services of `host` listen on and for whom: the one declaration of ports.

    `addresses` are those a service binds to (`*`: all). `sources` are who may come from outside; empty for everybody,
    and of no account where all addresses are loopback's.
    """
    rows: list[Row] = []
    if host in topology.proxy:
        for name, port in (("http", 80), ("https", 443)):
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": ["*"], "sources": []})
        if http3:
            rows.append({"name": "http3", "port": 443, "protocol": "udp", "addresses": ["*"], "sources": []})
        for name, port in PROXY_PORTS.get(proxy, {}).items():
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": [LOOPBACK], "sources": []})
    proxies = [host_network(topology.addresses[proxy]) for proxy in topology.proxy if proxy != host]
    for name, app in with_process(apps).items() if host in topology.app else ():
        address = topology.app_address(host, public=bool(app.get("domains")))
        sources = [] if address == LOOPBACK else proxies
        for port in ports_of(name, app):
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": [address], "sources": sources})
    if host in topology.database:
        allowed = dict.fromkeys(address for client in inputs["postgresql_clients"] for address in client["addresses"])
        allowed |= dict.fromkeys(host_network(peer["address"]) for peer in inputs["postgresql_replication"]["peers"])
        rows.append(
            {
                "name": "postgresql",
                "port": POSTGRESQL_PORT,
                "protocol": "tcp",
                "addresses": inputs["postgresql_listen_addresses"],
                "sources": [address for address in allowed if address != host_network(LOOPBACK)],
            }
        )
    if pools := inputs["pgbouncer_pools"]:
        sources = list(dict.fromkeys(address for pool in pools for address in pool["addresses"]))
        addresses = inputs["pgbouncer_listen_addresses"]
        rows.append(
            {"name": "pgbouncer", "port": pooler, "protocol": "tcp", "addresses": addresses, "sources": sources}
        )
    for instance in inputs["redis_instances"]:
        row = {key: instance[key] for key in ("port", "addresses", "sources")}
        rows.append({"name": f"redis-{instance['name']}", "protocol": "tcp", **row})
    return rows


def firewall_rules(listens: Sequence[Row]) -> list[Row]:
    """What the firewall must let in for that."""
    return [
        {"name": row["name"], "port": row["port"], "protocol": row["protocol"]}
        | ({"sources": row["sources"]} if row["sources"] else {})
        for row in listens
        if not {LOOPBACK, "localhost"}.issuperset(row["addresses"])
    ]
