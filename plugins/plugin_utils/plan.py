"""What follows from `apps` and the topology: each role's input for one host.

Apps are read key by key and only as far as needed, because Ansible templates what is read: whoever asks for the sites
does not decrypt the environment. Inventories are validated before this runs, so that it does not repeat the checks.
"""

from __future__ import annotations

from . import plan_backup, plan_listens, plan_needs, plan_pgbouncer, plan_postgresql, plan_redis, plan_sites
from .plan_common import Apps, Row, with_database
from .topology import Topology


def plan(
    apps: Apps,
    topology: Topology,
    host: str,
    proxy: str = "nginx",
    http3: bool = False,
    pooler: int = plan_pgbouncer.PGBOUNCER_PORT,
    redis: plan_redis.Instances | None = None,
) -> Row:
    """Each role's input on `host`, under the names the roles give it; what the apps themselves need is `app_list`.

    `pooler` is the port of PgBouncer on the database host, `redis` the instances that the inventory names.
    """
    sites = plan_sites.sites(apps, topology, host)
    certificates = plan_sites.certificates(sites)
    inputs = {
        **plan_postgresql.inputs(apps, topology, host),
        **plan_pgbouncer.inputs(apps, topology, host),
        **plan_redis.inputs(apps, redis or {}, topology, host),
    }
    listens = plan_listens.listens(apps, topology, host, inputs, proxy, http3, pooler)
    return {
        "nginx_sites": sites,
        "certbot_certificates": certificates,
        **inputs,
        "listens": listens,
        "hardening_contributed_firewall_rules": plan_listens.firewall_rules(listens),
        "backup_paths": plan_backup.paths(apps, topology, host, certificates),
        "docker_compose": host in topology.app and any(app["type"] == "compose" for app in apps.values()),
        "database_logins": plan_needs.logins(apps, topology, host),
        "needs": plan_needs.needs(apps, topology, host),
        "partitioned": any(app["database"].get("partitions") for app in with_database(apps).values()),
    }
