"""What of each host is backed up."""

from __future__ import annotations

from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan

from tests.unit.plan_cases import APPS, OCR, ONE, THREE


def test_each_host_backs_up_what_it_alone_has() -> None:
    mine, state = "/etc/shipshape", "/var/lib/shipshape/malar-api"
    assert plan(APPS, ONE, "web1")["backup_paths"] == [mine, "/etc/letsencrypt", state]
    assert plan(APPS, THREE, "web1")["backup_paths"] == [mine, "/etc/letsencrypt"]
    assert plan(APPS, THREE, "app1")["backup_paths"] == [mine, state]
    assert plan(APPS, THREE, "db1")["backup_paths"] == [mine]


def test_what_a_container_keeps_is_backed_up() -> None:
    assert "/var/lib/shipshape/ocr" in plan({"ocr": OCR}, ONE, "web1")["backup_paths"]
    assert "/var/lib/shipshape/ocr" not in plan({"ocr": {**OCR, "volumes": {}}}, ONE, "web1")["backup_paths"]
