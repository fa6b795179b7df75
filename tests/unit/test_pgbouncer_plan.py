"""What PgBouncer needs of PostgreSQL, and whether its pools fit."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import pgbouncer_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import pgbouncer_server as server

POOLS = [
    {"name": "malar-api", "database": "malar_api", "role": "malar_api", "size": 20},
    {"database": "shop", "role": "shop", "size": 5},
]
HARMLESS = {
    "login": True, "password": False, "superuser": False, "bypassrls": False, "createdb": False, "createrole": False,
    "replication": False,
}  # fmt: skip


def inside(**changes: Any) -> dict[str, Any]:
    return {"connect": True, "schema": "postgres", "usage": True, "function": dict(planning.FUNCTION), **changes}


def test_pools_with_their_reserves_and_lookups_fit_to_the_last_connection() -> None:
    assert planning.total(POOLS, 5) == 20 + 5 + 5 + 5 + planning.LOOKUPS == 38
    assert planning.shortage(POOLS, 5, 38) == ""
    said = planning.shortage(POOLS, 5, 37)
    for words in ("need 38 connections", "malar-api 20 + 5, shop 5 + 5", "gives 37", "max_connections: 48"):
        assert words in said
    assert planning.total([], 5) == 0


def test_its_role_has_no_password_and_no_power() -> None:
    (action,) = planning.plan_role(None)
    assert "LOGIN NOSUPERUSER" in action.sql and "PASSWORD" not in action.sql
    assert planning.plan_role(HARMLESS) == []
    (action,) = planning.plan_role({**HARMLESS, "superuser": True, "password": True, "login": False})
    assert action.sql == "ALTER ROLE pgbouncer NOSUPERUSER LOGIN PASSWORD NULL"


def test_a_database_that_has_the_function_is_left_alone() -> None:
    assert planning.plan_database("shop", inside()) == []


@pytest.mark.parametrize(
    "state",
    [
        None,
        inside(connect=False),
        inside(schema=None, usage=False, function=None),
        inside(usage=False),
        *(
            inside(function={**planning.FUNCTION, key: value})
            for key, value in {
                "body": "SELECT 1", "owner": "shop", "definer": False, "settings": None, "execute": False,
                "public": True,
            }.items()
        ),
    ],
)  # fmt: skip
def test_whatever_is_missing_or_was_changed_is_put_right_in_one_transaction(state: dict[str, Any] | None) -> None:
    (action,) = planning.plan_database('od"d', state)
    assert action.database == 'od"d' and 'GRANT CONNECT ON DATABASE "od""d" TO pgbouncer' in action.sql
    assert action.sql.startswith("BEGIN;") and action.sql.endswith("COMMIT")


def test_nobody_else_may_own_the_schema() -> None:
    assert planning.schema_problem("shop", inside()) == planning.schema_problem("shop", inside(schema=None)) == ""
    assert "belongs to shop" in planning.schema_problem("shop", inside(schema="shop"))


def test_what_stands_against_the_pools_is_said_of_each() -> None:
    pools = [{**POOLS[1]}, {**POOLS[1], "size": 0}, {**POOLS[0], "database": "pgbouncer"}, POOLS[0]]
    pools.append({**POOLS[0], "database": "a b"})
    found = "\n".join(planning.problems(pools, ["shop", "postgres"]))
    for words in (
        "pgbouncer_pools[1]: database 'shop' has a pool already",
        "[1]: size is 0",
        "[2]: database 'pgbouncer'",
        "[3]: database 'malar_api' is not on the server; it has: postgres, shop",
        "[4]: database 'a b'; PgBouncer takes letters",
    ):
        assert words in found
    assert planning.problems(POOLS, ["malar_api", "shop"]) == []


def test_settings_are_compared_as_pgbouncer_shows_them() -> None:
    wanted = {"max_client_conn": 500, "server_login_retry": 2, "pool_mode": "transaction", "log_connections": False}
    shown = {"max_client_conn": "500", "server_login_retry": "2.0", "pool_mode": "transaction", "log_connections": "0"}
    assert server.differing(wanted, shown) == []
    found = server.differing({**wanted, "nonsense": 1}, {**shown, "pool_mode": "session"})
    assert found == ["nonsense is not known to this version", "pool_mode = session, not transaction"]


def test_a_login_is_tried_again_while_a_reload_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["no such database", ""])
    monkeypatch.setattr(server, "log_in", lambda *_: next(answers))
    monkeypatch.setattr(server.time, "sleep", lambda _: None)
    pool = {"database": "shop", "role": "shop", "password": "x"}
    assert server.refusals([pool], 6432, "/nowhere", 5) == []
    missing = server.refusals([{**pool, "password": None}], 6432, "/nowhere")
    assert missing == [
        "shop (role shop, database shop): its password is neither in the inventory nor in /nowhere/shop.password"
    ]
