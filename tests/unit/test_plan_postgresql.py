"""What PostgreSQL is told of the apps' databases, and where an app finds its own."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

from tests.unit.plan_cases import API, APPS, GROWN, ONE, PASSWORDS, THREE, WEB, app, container


def test_two_apps_in_one_database_have_a_role_and_schemas_each() -> None:
    desk = {**API, "domains": ["desk.in"], "database": {"in": "malar_api", "extensions": ["vector"], "password": "p"}}
    first = {**API, "database": {"extensions": ["uuid-ossp"], "schemas": ["audit"], "read_only": True}}
    # In whichever order they stand.
    planned = plan({"desk": desk, "malar-api": first}, ONE, "web1")
    assert planned["postgresql_databases"] == [
        {
            "name": "malar_api",
            "owner": "malar_api",
            "extensions": ["uuid-ossp", "vector"],
            "schemas": [{"name": "audit", "owner": "malar_api"}, {"name": "desk", "owner": "desk"}],
            "readers": [{"role": "malar_api_read", "owner": "malar_api"}],
        }
    ]
    assert [role["name"] for role in planned["postgresql_roles"]] == ["malar_api", "malar_api_read", "desk"]
    assert [(row["database"], row["role"]) for row in planned["postgresql_clients"]] == [
        ("malar_api", "malar_api"),
        ("malar_api", "desk"),
    ]
    (row,) = plan_apps({"desk": desk}, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://desk:p@127.0.0.1:5432/malar_api"


def test_what_a_database_begins_with_and_its_partitions_go_to_the_role() -> None:
    database = {
        "load": "schema.sql",
        "partitions": {"logs": {"by": "at", "keep_months": 12}, "audit.all": {"by": "at"}},
    }
    apps = {"malar-api": {**API, "database": database}}
    (row,) = plan(apps, ONE, "web1")["postgresql_databases"]
    # A deploy makes them for tables that it brings, so each host has to know.
    assert plan(apps, THREE, "app1")["partitioned"] and not plan(APPS, THREE, "app1")["partitioned"]
    assert row["load"] == "schema.sql"
    assert row["partitions"] == [
        {"table": "logs", "role": "malar_api", "by": "at", "ahead": 2, "keep_months": 12},
        {"table": "audit.all", "role": "malar_api", "by": "at", "ahead": 2},
    ]


def test_a_role_has_its_limit_and_its_reader_the_password_that_is_given() -> None:
    database = {"name": "ledger", "connection_limit": 20, "read_only": {"password": "r"}}
    roles = plan({"malar-api": {**API, "database": database}}, ONE, "web1")["postgresql_roles"]
    assert roles == [{"name": "ledger", "connection_limit": 20}, {"name": "ledger_read", "password": "r"}]
    database = {"name": "ledger", "read_only": False}
    assert plan({"a": {**API, "database": database}}, ONE, "web1")["postgresql_roles"] == [{"name": "ledger"}]


def test_a_password_in_the_inventory_needs_no_other() -> None:
    database = {"name": "ledger", "password": "s3cret"}
    apps = {"malar-api": {**API, "database": database}}
    (row,) = plan_apps(apps, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://ledger:s3cret@127.0.0.1:5432/ledger"
    planned = plan(apps, ONE, "web1")
    assert planned["postgresql_roles"] == [{"name": "ledger", "password": "s3cret"}]
    assert planned["database_logins"] == []


def test_an_ipv6_database_is_reached_and_opened_as_such() -> None:
    assert "@[fd00::3]:5432/" in app(GROWN, "app1")["env"]["DATABASE_URL"]
    assert plan(APPS, GROWN, "db1")["postgresql_listen_addresses"] == ["localhost", "fd00::3"]


def test_a_container_reaches_a_database_on_its_own_host_by_the_socket_and_another_by_its_address() -> None:
    row = container(ONE, "web1")
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:p%40ss%2Fw%3Ard@/ocr?host=/var/run/postgresql"
    assert row["sockets"] == ["/var/run/postgresql"]
    row = container(THREE, "app1")
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:p%40ss%2Fw%3Ard@10.0.0.3:5432/ocr" and "sockets" not in row


def test_apps_with_a_database_need_a_database_host() -> None:
    nowhere = Topology(("web1",), ("web1",), ())
    with pytest.raises(PlanError, match="group `database` has no host; put the droplet"):
        plan_apps(APPS, nowhere, "web1", PASSWORDS)
    assert plan({"malar-web": WEB}, nowhere, "web1")["postgresql_databases"] == []
