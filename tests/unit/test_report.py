"""The words at the end of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils import report

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def state(**changes: Any) -> dict[str, Any]:
    return {
        "certificates": [],
        "failed_units": [],
        "reboot_required": False,
        "backup": {"last": {}, "last_success": ""},
        **changes,
    }


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (timedelta(days=89, hours=3), "89 days"),
        (timedelta(days=1, hours=3), "27 hours"),
        (timedelta(hours=11, minutes=59), "11 hours"),
        (timedelta(minutes=5), "5 minutes"),
        (timedelta(seconds=42), "42 seconds"),
    ],
)
def test_a_span_is_said_in_two_words(delta: timedelta, words: str) -> None:
    assert report.span(delta) == words


def certificate(expires: str, self_signed: bool = False) -> dict[str, Any]:
    return {"path": "/etc/shipshape/tls/shop/fullchain.pem", "expires": expires, "self_signed": self_signed}


def test_a_certificate_says_how_long_it_lasts() -> None:
    assert report.certificate_line(certificate("May 30 12:00:00 2026 GMT"), NOW) == (
        "certificate  shop: until 2026-05-30 12:00 UTC (90 days left)"
    )


def test_an_expired_certificate_cannot_be_overlooked() -> None:
    assert "EXPIRED 2 days ago" in report.certificate_line(certificate("Feb 27 12:00:00 2026 GMT"), NOW)


def test_a_self_signed_certificate_is_called_one() -> None:
    assert "shop: self-signed, until" in report.certificate_line(certificate("May 30 12:00:00 2026 GMT", True), NOW)


def test_a_good_backup_says_its_age() -> None:
    status = {"last": {"status": "ok"}, "last_success": "2026-03-01T02:00:00+00:00"}
    assert report.backup_line(status, True, NOW) == "backup       2026-03-01 02:00 UTC (10 hours ago)"


def test_a_missed_night_is_called_late() -> None:
    status = {"last": {"status": "ok"}, "last_success": "2026-02-27T02:00:00Z"}
    assert "LATE" in report.backup_line(status, True, NOW)


def test_a_failed_attempt_is_said_beside_the_last_good_one() -> None:
    status = {
        "last": {"status": "failed", "failures": ["the bucket is unreachable"]},
        "last_success": "2026-02-28T02:00:00Z",
    }
    line = report.backup_line(status, True, NOW)
    assert "2026-02-28 02:00" in line
    assert "FAILED: the bucket is unreachable" in line


def test_no_backup_says_how_to_get_one() -> None:
    assert "playbooks/backup.yml" in report.backup_line({"last": {}, "last_success": ""}, True, NOW)
    assert "set 'backup' in the inventory" in report.backup_line({}, False, NOW)


def test_failed_units_and_a_due_reboot_are_named() -> None:
    text = "\n".join(
        report.lines(state(failed_units=["shop.service"], reboot_required=True), ["https://shop.test"], True, NOW)
    )
    assert "url          https://shop.test" in text
    assert "FAILED       shop.service" in text
    assert "reboot       required" in text


def test_a_primary_says_how_far_its_replicas_are_behind() -> None:
    status = {
        "at": "2026-03-01T11:57:00+00:00",
        "replicas": {
            "two": {"streams": True, "bytes_behind": 512, "since": None},
            "three": {"streams": False, "bytes_behind": None, "since": "2026-03-01T09:00:00+00:00"},
        },
    }
    now = "2026-03-01T12:00:00+00:00"
    told = report.lines(state(replicas=status, now=now), [], False, NOW, replicated=True)
    assert "replica      two: 512 bytes behind (3 minutes ago)" in told
    assert "REPLICA      three: does not follow, since 2026-03-01T09:00:00+00:00 (3 minutes ago)" in told
    assert any(
        "not looked at yet" in line
        for line in report.lines(state(replicas={}, now=now), [], False, NOW, replicated=True)
    )
    assert not any("replica" in line for line in report.lines(state(), [], False, NOW))
