"""What the user writes beside the apps: the globals, declared."""

from __future__ import annotations

from .app_fields import APP, app_name
from .checks import (
    ISSUED,
    absolute_path,
    email,
    https_url,
    matches,
    public_key,
    schedule,
    secret_https_url,
    strong,
)
from .names import (
    LONGEST_USER_NAME,
    SYSTEM_USERS,
)
from .problems import Fault, count
from .redis_fields import REDIS
from .schema import Flag, Items, Key, Number, Pairs, Table, Text
from .site_fields import filled_in

ADMINS = 'a list of admins, such as [{name: deploy, ssh_keys: ["ssh-ed25519 AAAA… laptop"]}]'
ENVIRONMENT = "the environment's name in lower-case letters, digits and hyphens, such as production"
DRILL = "how often a restore is rehearsed: weekly, monthly, quarterly or never"
DOCKER_GROUP = "docker, the one group that an admin may be in beside sudo"
DOCKER_GROUPS = "groups beside sudo: [docker] for docker without sudo on the hosts that have it; [] takes the admin out"
POLICY = "how many backups to keep, such as {daily: 30, monthly: 12}"


def admin_name(value: str) -> Fault | None:
    """The name of an admin, who becomes a Unix user with sudo."""
    if value in SYSTEM_USERS - {"ubuntu", "debian"}:
        return Fault(f"{value}, a system user", "a person's or a team's name, such as deploy; root's login is shut")
    if len(value) > LONGEST_USER_NAME:
        return Fault(f"a name of {count(len(value), 'character')}", f"{LONGEST_USER_NAME} characters at most")
    return matches("[a-z_][a-z0-9_-]*", "a Unix user's name: lower-case letters, digits, hyphens, such as deploy")(
        value
    )


S3 = Table(
    {
        "endpoint": Key(Text("the store's https URL, such as https://fra1.digitaloceanspaces.com", (https_url,)), True),
        "bucket": Key(
            filled_in("a bucket's name: 3 to 63 of a-z, 0-9, dot, hyphen", "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"), True
        ),
        "access_key": Key(Text("the access key, from the vault", (strong(8, ISSUED),), True), True),
        "secret_key": Key(Text("the secret key, from the vault", (strong(8, ISSUED),), True), True),
        "region": Key(Text("the store's region, such as fra1")),
    },
    "the S3 store: endpoint, bucket, access_key, secret_key",
)


def _keep(period: str) -> Key:
    return Key(Number(f"how many {period} backups to keep, 0 to 1000", 0, 1000))


BACKUP = Table(
    {
        "s3": Key(S3, True),
        "password": Key(Text("the password that encrypts the backups, from the vault", (strong(),), True), True),
        "keep": Key(Table({period: _keep(period) for period in ("daily", "weekly", "monthly")}, POLICY)),
        "schedule": Key(Text('when, as cron reads it, such as "0 2 * * *"', (schedule,))),
        "paths": Key(Items(Text("a path on the droplet", (absolute_path,)), "a list of paths on the droplet")),
        "recovery_days": Key(Number("of how many days each moment of the databases can be restored, 1 to 365", 1, 365)),
        "full": Key(Text('when the whole database server is copied for that, such as "30 1 * * 0"', (schedule,))),
        "drill": Key(Text(DRILL, (matches("weekly|monthly|quarterly|never", DRILL),))),
        "differential": Key(Text('when what has changed since, such as "30 1 * * 1-6"', (schedule,))),
        "webhook": Key(Text("the https URL that hears of a failed backup", (secret_https_url,), True)),
        "mail": Key(Text("the address that is told of it by mail, where the droplet can send mail", (email,))),
    },
    "s3, password, and as needed keep, schedule, paths, recovery_days, full, differential, drill, webhook, mail",
)

ADMIN = Table(
    {
        "name": Key(Text("the admin's user name, such as deploy", (admin_name,)), True),
        "ssh_keys": Key(Items(Text("a public SSH key", (public_key,)), "a list of public SSH keys", least=1), True),
        "groups": Key(Items(Text("docker", (matches("docker", DOCKER_GROUP),)), DOCKER_GROUPS)),
    },
    'an admin, such as {name: deploy, ssh_keys: ["ssh-ed25519 AAAA… laptop"]}',
)

PROXY = "nginx (as without this key) or traefik"
TLS_POLICY = "intermediate (TLS 1.2 and 1.3, as without this key) or modern (1.3 only)"
ACME_DIRECTORY = "the https URL of the certificate authority's directory; without one, Let's Encrypt"

ACME_DNS = Table(
    {
        "provider": Key(
            Text("digitalocean", (matches("digitalocean", "digitalocean, the one provider that is known here"),)), True
        ),
        "token": Key(Text("a token for the provider's API, from the vault", (strong(20, ISSUED),), True), True),
        "propagation_seconds": Key(
            Number("seconds until all of the provider's name servers know a record, 1 to 3600", 1, 3600)
        ),
    },
    'who has your zones, such as {provider: digitalocean, token: "{{ vault_digitalocean_token }}"}: names are then '
    "proven by records in DNS and may be wildcards",
)

GLOBALS = {
    "proxy": Key(Text(PROXY, (matches("nginx|traefik", PROXY),))),
    "http3": Key(Flag("true (HTTP/3 beside HTTP/2, on port 443 of UDP; nginx from 1.25 on) or false")),
    "tls_policy": Key(Text(TLS_POLICY, (matches("intermediate|modern", TLS_POLICY),))),
    "acme_email": Key(Text("your email address: the certificate authority writes to it", (email,))),
    "acme_directory": Key(Text(ACME_DIRECTORY, (https_url,))),
    "acme_dns": Key(ACME_DNS),
    "acme_staging": Key(Flag("true (test certificates that browsers refuse) or false")),
    "admins": Key(Items(ADMIN, ADMINS, least=1), required=True),
    "environment_name": Key(
        Text(
            ENVIRONMENT,
            (matches("[a-z][a-z0-9-]*", ENVIRONMENT),),
        )
    ),
    "private_address": Key(Text("the address at which the other hosts reach this one")),
    "docker": Key(Flag("true (Docker on the hosts that run apps, as without this key) or false")),
    "backup": Key(BACKUP),
    "redis": Key(REDIS),
    "deploy_webhook": Key(Text("the https URL that hears of deploys, in Slack's form", (secret_https_url,), True)),
    "apps": Key(Pairs(lambda _name: APP, "the apps, each under its name", app_name)),
}

# What the wiring fills from the globals, and would therefore not be read under the role's own name.
WIRED = {
    "hardening_admins": "admins",
    "hardening_environment": "environment_name",
    "hardening_contributed_firewall_rules": "hardening_firewall_rules",
    "hardening_contributed_forwarding": "",
    "pgbouncer_server_connections": "",
    "postgresql_replication": "",
    "postgresql_secrets": "",
    "redis_keep_packaged": "",
    "docker_published_ports": "hardening_firewall_rules",
    "hardening_contributed_jails": "",
    "nginx_http3": "http3",
    "traefik_http3": "http3",
    "nginx_acme_webroot": "",
    "traefik_acme_webroot": "",
    "certbot_email": "acme_email",
    "certbot_directory": "acme_directory",
    "certbot_staging": "acme_staging",
    "certbot_dns": "acme_dns",
    "traefik_acme_dns": "acme_dns",
    "certbot_webroot": "",
    "certbot_reload_command": "",
    "app_list": "apps",
    "app_hosts": "",
    "app_proxies": "",
    "app_proxy": "`proxy`",
    "app_proxy_user": "",
    "app_partitions_host": "apps.<app>.database.partitions",
    "app_webhook": "deploy_webhook",
    "app_break_lock": "",
    "backup_s3": "backup.s3",
    "backup_password": "backup.password",
    "backup_paths": "backup.paths",
    "backup_keep": "backup.keep",
    "backup_schedule": "backup.schedule",
    "backup_drill_schedule": "backup.drill",
    "backup_server_copy": "backup.recovery_days",
    "backup_webhook": "backup.webhook",
    "postgresql_alarm": "backup.webhook",
    "backup_mail": "backup.mail",
    "pgbackrest_s3": "backup.s3",
    "pgbackrest_password": "backup.password",
    "pgbackrest_postgresql_version": "postgresql_version",
    "pgbackrest_recovery_days": "backup.recovery_days",
    "pgbackrest_full_schedule": "backup.full",
    "pgbackrest_differential_schedule": "backup.differential",
    "pgbackrest_drill_schedule": "backup.drill",
    "pgbackrest_webhook": "backup.webhook",
    "pgbackrest_mail": "backup.mail",
}
# Given on the command line, not in the inventory.
OPERATOR_VARIABLES = frozenset(
    {
        *("accept_loss", "app", "back", "backup_hours", "break_lock", "confirm_environment", "fenced", "job", "lag"),
        *("link", "migrations", "prepare", "reboot", "tables", "to", "version"),
    }
)
