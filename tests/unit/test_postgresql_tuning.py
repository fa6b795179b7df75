"""Settings from memory and cores, and what the role's templates make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.shipshape.droplet.plugins.filter import postgresql_tuning as tuning

TEMPLATES = Path(__file__).parents[2] / "roles" / "postgresql" / "templates"


def megabytes(settings: dict[str, Any], name: str) -> int:
    assert str(settings[name]).endswith("MB")
    return int(str(settings[name])[:-2])


@pytest.mark.parametrize("memory", [460, 512, 970, 2048, 3915, 16384, 131072])
def test_what_the_server_takes_leaves_half_of_the_memory_to_others(memory: int) -> None:
    settings = tuning.postgresql_tuning(memory, 2)
    busy = (
        megabytes(settings, "shared_buffers")
        + 3 * megabytes(settings, "autovacuum_work_mem")
        + 20 * megabytes(settings, "work_mem")
    )
    # On the smallest droplet the floors of work_mem and autovacuum weigh more.
    assert busy <= memory * (0.6 if memory < 1024 else 0.5)


def test_a_droplet_of_512_mb_gets_no_more_shared_memory_than_the_default() -> None:
    assert megabytes(tuning.postgresql_tuning(478, 1), "shared_buffers") <= 128


def test_memory_that_differs_by_a_kernel_update_gives_the_same_settings() -> None:
    assert tuning.postgresql_tuning(3915, 2) == tuning.postgresql_tuning(3921, 2)


def test_one_core_plans_no_parallel_workers() -> None:
    assert tuning.postgresql_tuning(1024, 1)["max_parallel_workers_per_gather"] == 0
    assert tuning.postgresql_tuning(65536, 32)["max_parallel_workers_per_gather"] == 4


def test_a_random_page_costs_more_on_a_disk_that_turns() -> None:
    pages = [tuning.postgresql_tuning(2048, 2, disk)["random_page_cost"] for disk in ("ssd", "hdd")]
    assert pages == [1.1, 4]


def test_commits_that_come_together_share_a_write_and_one_that_comes_alone_does_not_wait() -> None:
    settings = tuning.postgresql_tuning(2048)
    assert 0 < int(settings["commit_delay"]) <= 1000 and int(settings["commit_siblings"]) >= 2


@pytest.mark.parametrize(("version", "method"), [("", "on"), ("13", "on"), ("14", "on"), ("15", "lz4"), ("17", "lz4")])
def test_the_log_is_compressed_by_the_quickest_method_that_the_version_knows(version: str, method: str) -> None:
    assert tuning.postgresql_tuning(2048, 2, "ssd", version)["wal_compression"] == method


@pytest.mark.parametrize("memory", [478, 3915, 131072])
def test_no_speed_is_bought_with_what_was_committed(memory: int) -> None:
    settings = tuning.postgresql_tuning(memory, 2, "ssd", "17")
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & set(settings)


MOUNTS = [{"mount": "/", "device": "/dev/sda1"}, {"mount": "/var/lib/postgresql", "device": "/dev/sdb"}]
DEVICES = {"sda": {"rotational": "0", "partitions": {"sda1": {}}}, "sdb": {"rotational": "1", "partitions": {}}}


@pytest.mark.parametrize(
    ("facts", "disk"),
    [
        ({}, "ssd"),
        ({"data_disk": {"rotational": ""}}, "ssd"),
        ({"data_disk": {"rotational": "0"}}, "ssd"),
        ({"data_disk": {"rotational": "1"}}, "hdd"),
        ({"data_disk": {"rotational": "1"}, "virtualization_role": "host"}, "hdd"),
        # A guest's kernel takes the hypervisor's word, which most of them do not give.
        ({"data_disk": {"rotational": "1"}, "virtualization_role": "guest"}, "ssd"),
        ({"mounts": MOUNTS, "devices": DEVICES}, "hdd"),
        ({"mounts": MOUNTS[:1], "devices": DEVICES}, "ssd"),
        ({"mounts": MOUNTS, "devices": {}}, "ssd"),
        ({"mounts": [{"mount": "/", "device": "overlay"}], "devices": DEVICES}, "ssd"),
    ],
)
def test_the_disk_is_what_a_kernel_that_can_know_says_of_it(facts: dict[str, Any], disk: str) -> None:
    assert tuning.postgresql_disk(facts) == disk


@pytest.mark.parametrize("memory", ["plenty", None, 64])
def test_memory_that_is_none_is_refused(memory: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        tuning.postgresql_tuning(memory)


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (True, "on"),
        (False, "off"),
        (3, "3"),
        (0.9, "0.9"),
        ("4MB", "'4MB'"),
        ("it's", "'it''s'"),
        ("a\\b", "'a\\\\b'"),
        (["a", "b"], "'a, b'"),
    ],
)
def test_a_value_is_written_as_the_configuration_file_takes_it(value: Any, literal: str) -> None:
    assert tuning.postgresql_literal(value) == literal


def test_tables_with_partitions_are_those_of_all_databases() -> None:
    table = {"table": "logs", "role": "shop", "by": "at"}
    databases = [{"name": "a"}, {"name": "b", "partitions": [table, {**table, "ahead": 5}]}]
    assert tuning.postgresql_partitions(databases) == [
        {**table, "ahead": 2, "database": "b"},
        {**table, "ahead": 5, "database": "b"},
    ]


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="version are numbers"):
        tuning.postgresql_tuning(2048, 2, "ssd", "fifteen")


def test_a_setting_of_two_lines_is_refused() -> None:
    with pytest.raises(AnsibleFilterError):
        tuning.postgresql_literal("a\nfsync = off")


def render(name: str, **variables: Any) -> list[str]:
    templar = Templar(DataLoader(), variables=variables)
    text = templar.template(
        trust_as_template((TEMPLATES / name).read_text()), overrides={"trim_blocks": True, "lstrip_blocks": True}
    )
    return [" ".join(line.split()) for line in str(text).splitlines() if line.strip() and not line.startswith("#")]


def test_pg_hba_has_the_superuser_by_socket_only_and_remote_clients_by_tls_only() -> None:
    clients = [
        {
            "database": 'od"d',
            "role": "shop",
            "addresses": ["10.0.0.5", "10.1.0.0/16", "127.0.0.1", "127.0.0.1/32", "fd00::5", "::1"],
        }
    ]
    assert render(
        "pg_hba.conf.j2", postgresql_clients=clients, postgresql_hba_lines=["host x y 10.9.9.9/32 reject"]
    ) == [
        "local all postgres peer",
        "local replication postgres peer",
        "host x y 10.9.9.9/32 reject",
        "local all all scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
        "host all all ::1/128 scram-sha-256",
        'hostssl "od""d" "shop" 10.0.0.5/32 scram-sha-256',
        'hostssl "od""d" "shop" 10.1.0.0/16 scram-sha-256',
        'hostssl "od""d" "shop" fd00::5/128 scram-sha-256',
    ]


def test_settings_are_written_in_order_with_their_quotes() -> None:
    lines = render(
        "shipshape.conf.j2", __postgresql_settings={"ssl": True, "shared_buffers": "1GB", "max_connections": 100}
    )
    assert lines == ["max_connections = 100", "shared_buffers = '1GB'", "ssl = on"]
