"""Names, addresses and ports: what is one, and which one follows from an app's name."""

from __future__ import annotations

import ipaddress
import re
import zlib

# Below the kernel's ephemeral range (32768-60999), above what daemons take. Each app has two: the second is for a
# release that is started beside the one that serves.
FIRST_APP_PORT = 20000
APP_PORTS = 10000

# Below those of the apps. What has its port from its name must not meet one that has its own from there.
FIRST_REDIS_PORT = 16000
REDIS_PORTS = 4000

LONGEST_USER_NAME = 32
LONGEST_POSTGRESQL_NAME = 63

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)
_APP_NAME = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]|[a-z]")
_POSTGRESQL_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

POSTGRESQL_DATABASES = frozenset({"postgres", "template0", "template1"})
# https://www.postgresql.org/docs/current/sql-keywords-appendix.html, "reserved", and the role names PostgreSQL refuses.
_RESERVED = """all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign from grant group having in initially intersect into lateral
    leading limit localtime localtimestamp none not null offset on only or order placing primary public references
    returning select session_user some symmetric system_user table then to trailing true union unique user using
    variadic when where window with"""
POSTGRESQL_RESERVED = frozenset(_RESERVED.split())
# Users a Debian or Ubuntu system brings or our own packages create: an app must not become one of them. `live` is a
# folder of ours beside those that apps write to.
_USERS = """root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody sshd
    messagebus systemd-network systemd-resolve systemd-timesync postgres pgbouncer nginx redis docker ubuntu debian
    fail2ban sudo adm shipshape live syslog uuidd tcpdump landscape pollinate lxd"""
SYSTEM_USERS = frozenset(_USERS.split())


def app_port(name: str) -> int:
    """The port an app listens on unless the inventory gives one: the same on every run, from the name alone."""
    return FIRST_APP_PORT + 2 * (zlib.crc32(name.encode()) % (APP_PORTS // 2))


def second_port(port: int) -> int:
    """The port of the release that is started beside the one that serves: an app behind a proxy has two by turns."""
    return port + 1


def redis_port(name: str) -> int:
    """The port of an instance of Redis unless the inventory gives one."""
    return FIRST_REDIS_PORT + zlib.crc32(name.encode()) % REDIS_PORTS


def database_name(app: str) -> str:
    """The database (and role) an app gets unless the inventory names one: no quoting needed in SQL."""
    return app.replace("-", "_")


def is_address(value: str) -> bool:
    """Whether this is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def host_network(address: str) -> str:
    """One address as the network of that one host: what pg_hba.conf and ufw take."""
    return str(ipaddress.ip_network(address))


def socket_address(host: str, port: int) -> str:
    """Host and port as a URL or nginx writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_hostname(value: str) -> bool:
    """Whether this is a name that public DNS and a certificate can carry: two labels or more, the last no number."""
    labels = value.split(".")
    return (
        len(value) <= 253
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


def is_app_name(value: str) -> bool:
    """Whether an app may be called so: it becomes a Unix user, a directory, a systemd unit and an nginx file."""
    return bool(_APP_NAME.fullmatch(value))


def is_postgresql_name(value: str) -> bool:
    """Whether PostgreSQL takes this name as it is, without quotes."""
    return bool(_POSTGRESQL_NAME.fullmatch(value))


def is_environment_name(value: str) -> bool:
    """Whether a shell and systemd take this as the name of an environment variable."""
    return bool(_ENVIRONMENT_NAME.fullmatch(value))
