"""From a server's state to statements, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_scram as scram

ROLES = [{"name": "shop", "password": "secret-of-the-shop"}]
DATABASES = [{"name": "shop", "owner": "shop", "extensions": ["pgcrypto"], "locale": "C.UTF-8"}]
HARMLESS = {
    "login": True,
    "superuser": False,
    "bypassrls": False,
    "createdb": False,
    "createrole": False,
    "replication": False,
    "limit": -1,
}


def converged(version: int = 15) -> planning.State:
    return planning.State(
        version,
        roles={
            "postgres": dict(HARMLESS, superuser=True, verifier=None),
            "shop": dict(HARMLESS, verifier=scram.verifier("secret-of-the-shop")),
        },
        databases={"shop": {"owner": "shop", "public": False, "connect": ["shop"]}},
        available=["pgcrypto", "plpgsql"],
        details={
            "shop": {
                "extensions": ["plpgsql", "pgcrypto"],
                "public_schema": {"owner": "pg_database_owner", "open": False},
                "schemas": {"public": "pg_database_owner"},
                "unreadable": [],
                "comment": None,
                "filled": True,
            }
        },
        connections=100,
    )


def plan(
    state: planning.State, roles: Any = ROLES, databases: Any = DATABASES, clients: Any = ()
) -> list[planning.Action]:
    assert planning.find_problems(state, roles, databases, list(clients)) == []
    return [*planning.plan_roles(state, roles), *planning.plan_databases(state, databases, list(clients))]


def test_a_fresh_server_gets_everything_in_an_order_that_works() -> None:
    assert [action.summary for action in plan(planning.State(15))] == [
        "create role shop",
        "create database shop",
        "close database shop to other roles",
        "create extension pgcrypto in shop",
    ]


def test_what_is_there_already_is_left_alone() -> None:
    assert plan(converged()) == []


def test_before_version_15_the_public_schema_is_given_to_the_owner_and_closed() -> None:
    summaries = [action.summary for action in plan(planning.State(13))]
    assert summaries[-2:] == ["give schema public of shop to shop", "close schema public of shop"]


def test_only_a_changed_password_is_changed_and_the_server_never_sees_it() -> None:
    (action,) = plan(converged(), roles=[{"name": "shop", "password": "another"}])
    assert action.summary == "change the password of role shop"
    assert "another" not in action.sql
    assert scram.matches("another", action.sql.split("E'")[1].rstrip("'"))


def test_an_md5_password_is_replaced() -> None:
    state = converged()
    state.roles["shop"]["verifier"] = "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    assert [action.summary for action in plan(state)] == ["change the password of role shop"]


@pytest.mark.parametrize(("power", "option"), planning.POWERS.items())
def test_a_role_loses_each_power_an_application_must_not_have(power: str, option: str) -> None:
    state = converged()
    state.roles["shop"][power] = True
    (action,) = plan(state)
    assert action.sql == f'ALTER ROLE "shop" {option}'


def test_a_new_role_has_none_of_the_powers() -> None:
    created = plan(planning.State(15))[0].sql
    assert " LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD E'SCRAM" in created


def test_a_client_that_is_not_the_owner_may_connect_and_the_owner_needs_no_grant() -> None:
    state = converged()
    state.roles["reader"] = dict(HARMLESS, verifier=None)
    state.databases["shop"]["connect"] = []
    clients = [{"database": "shop", "role": "reader"}, {"database": "shop", "role": "shop"}]
    (action,) = plan(state, clients=clients)
    assert action.sql == 'GRANT CONNECT ON DATABASE "shop" TO "reader"'


def test_statements_that_are_counted_can_be_read() -> None:
    assert planning.plan_server(converged()) == []
    (action,) = planning.plan_server(planning.State(15, uncounted=True))
    assert (action.sql, action.database) == ("CREATE EXTENSION pg_stat_statements", "postgres")


def test_schemas_belong_to_their_owners_who_may_connect() -> None:
    state = converged()
    state.roles["desk"] = dict(HARMLESS, verifier=None)
    state.details["shop"]["schemas"]["audit"] = "desk"
    schemas = [{"name": "desk", "owner": "desk"}, {"name": "audit", "owner": "shop"}]
    actions = plan(state, databases=[dict(DATABASES[0], schemas=schemas)])
    assert [(action.sql, action.database) for action in actions] == [
        ('GRANT CONNECT ON DATABASE "shop" TO "desk"', "postgres"),
        ('CREATE SCHEMA "desk" AUTHORIZATION "desk"', "shop"),
        ('ALTER SCHEMA "audit" OWNER TO "shop"', "shop"),
    ]


@pytest.mark.parametrize(("unreadable", "told"), [([], 0), (["shop_read"], 1), (None, 1)])
def test_a_reader_is_given_what_it_lacks_and_what_will_come(unreadable: Any, told: int) -> None:
    state = converged()
    state.roles["shop_read"] = dict(HARMLESS, verifier=None)
    state.databases["shop"]["connect"] = ["shop", "shop_read"]
    state.details["shop"]["unreadable"] = unreadable
    databases = [dict(DATABASES[0], readers=[{"role": "shop_read", "owner": "shop"}])]
    actions = plan(state, databases=databases)
    assert [action.summary for action in actions] == ["let role shop_read read what shop has in shop"] * told
    assert all('FOR ROLE "shop" GRANT SELECT ON TABLES TO "shop_read"' in action.sql for action in actions)
    assert "(E'shop_read', E'shop')" in planning.database_state(databases[0])


@pytest.mark.parametrize(("found", "wanted", "said"), [(-1, 5, 5), (5, None, -1), (4, 5, 5), (5, 5, None)])
def test_a_limit_of_connections_is_set_and_taken_back(found: int, wanted: Any, said: Any) -> None:
    state = converged()
    state.roles["shop"]["limit"] = found
    actions = plan(state, roles=[dict(ROLES[0], connection_limit=wanted)])
    assert [action.sql for action in actions] == ([f'ALTER ROLE "shop" CONNECTION LIMIT {said}'] if said else [])


def test_a_new_role_has_its_limit_from_the_start() -> None:
    created = plan(planning.State(15), roles=[dict(ROLES[0], connection_limit=7)])[0].sql
    assert " NOREPLICATION CONNECTION LIMIT 7 PASSWORD " in created


def test_names_and_texts_are_quoted() -> None:
    roles = [{"name": 'a"; DROP ROLE x; --', "password": "p"}]
    databases = [{"name": "d b", "owner": 'a"; DROP ROLE x; --', "extensions": [], "locale": "C'.\\UTF-8"}]
    statements = [action.sql for action in plan(planning.State(15), roles, databases)]
    assert statements[0].startswith('CREATE ROLE "a""; DROP ROLE x; --" LOGIN')
    assert "LC_COLLATE E'C\\'.\\\\UTF-8'" in statements[1]


def test_nothing_is_ever_dropped() -> None:
    state = converged()
    state.databases["old"] = {"owner": "shop", "public": False, "connect": []}
    assert plan(state) == []
    assert not any("DROP" in action.sql for action in plan(planning.State(15)))


@pytest.mark.parametrize(
    ("roles", "databases", "clients", "words"),
    [
        ([{"name": "postgres", "password": "x"}], [], [], "postgresql_roles[0].name: 'postgres' belongs to the server"),
        ([{"name": "pg_mine", "password": "x"}], [], [], "names that begin with pg_ are the server's own"),
        ([{"name": "a/b", "password": "x"}], [], [], "a name has no slash"),
        ([{"name": "ü" * 32, "password": "x"}], [], [], "PostgreSQL takes names of 1 to 63 bytes"),
        (ROLES * 2, [], [], "postgresql_roles[1].name: 'shop' is there twice"),
        ([], [{"name": "x", "owner": "nobody", "extensions": []}], [], "owner 'nobody' is neither in postgresql_roles"),
        ([], [{"name": "x", "owner": "postgres", "extensions": []}], [], "owner 'postgres' is a superuser"),
        ([], [{"name": "template1", "owner": "shop", "extensions": []}], [], "'template1' belongs to the server"),
        ([], [{"name": "x", "owner": "shop", "extensions": ["uuid_ossp"]}], [], "'uuid_ossp' is not available"),
        ([dict(ROLES[0], connection_limit=101)], [], [], "connection_limit is 101, and the server takes 100"),
        ([], [dict(DATABASES[0], schemas=[{"name": "public", "owner": "shop"}])], [], "schemas[0] 'public': that"),
        ([], [dict(DATABASES[0], schemas=[{"name": "x", "owner": "shop"}] * 2)], [], "schema 'x' is there twice"),
        ([], [dict(DATABASES[0], schemas=[{"name": "x", "owner": "who"}])], [], "schemas[0]: 'who' is neither in"),
        ([], [dict(DATABASES[0], readers=[{"role": "who", "owner": "shop"}])], [], "readers[0]: 'who' is neither in"),
        ([], [], [{"database": "shop", "role": "nobody"}], "postgresql_clients[0]: role 'nobody' is neither"),
        ([], [], [{"database": "nowhere", "role": "shop"}], "postgresql_clients[0]: database 'nowhere' is neither"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_place(roles: Any, databases: Any, clients: Any, words: str) -> None:
    problems = planning.find_problems(converged(), roles, databases, clients)
    assert len(problems) == 1
    assert words in problems[0]


def test_all_problems_are_said_at_once() -> None:
    roles = [{"name": "", "password": "x"}, {"name": "pg_x", "password": "x"}]
    assert len(planning.find_problems(converged(), roles, [{"name": "d", "owner": "q", "extensions": ["w"]}], [])) == 4


def test_without_a_server_nobody_knows_which_extensions_there_are() -> None:
    databases = [{"name": "x", "owner": "shop", "extensions": ["vector"]}]
    assert planning.find_problems(planning.State(15), ROLES, databases, []) == []


@pytest.mark.parametrize(
    ("comment", "filled", "loads"),
    [
        (None, False, (["shop"], [])),
        (None, True, ([], ["shop"])),
        ("Loaded by Shipshape from schema.sql on 2026-11-01", False, ([], [])),
        ("Loaded by Shipshape from schema.sql on 2026-11-01", True, ([], [])),
        ("The shop", False, (["shop"], [])),
    ],
)
def test_a_database_is_loaded_when_it_is_new_and_never_was(comment: Any, filled: bool, loads: Any) -> None:
    state = converged()
    state.details["shop"].update(comment=comment, filled=filled)
    assert planning.plan_loads(state, [dict(DATABASES[0], load="schema.sql")]) == loads
    assert planning.plan_loads(state, [dict(DATABASES[0], load=None)]) == ([], [])
    assert planning.plan_loads(planning.State(15), [dict(DATABASES[0], load="schema.sql")]) == (["shop"], [])
