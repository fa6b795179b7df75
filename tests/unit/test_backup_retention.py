"""What each of the five systems keeps, by the role's own configuration and a real restic, over 400 simulated days."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import Templar, trust_as_template

from tests.unit import restic_lab
from tests.unit.test_wiring import ROOT, Wired

sys.path.insert(0, str(ROOT / "roles" / "backup" / "files"))

import shipshape_backup.make as make
import shipshape_backup.store as store

FIRST, LAST = date(2025, 10, 23), date(2026, 11, 26)  # a Thursday each
#: Inventory and a host of each.
SYSTEMS = {
    "InsightPulse": ("insightpulse", "ocr1"),
    "Smart Lodge": ("smart-lodge", "lodge1"),
    "MA Electrical": ("ma-electrical", "electrical1"),
    "Portun": ("portun", "portun1"),
    "Malar Market": ("malar-market", "malar1"),
}


def filled_in(example: Any) -> Any:
    """What a vault's example asks for, such as `<random>`, with something in its place."""
    if isinstance(example, dict):
        return {name: filled_in(value) for name, value in example.items()}
    return "https://s3.test" if "https URL" in str(example) else "something-in-its-place"


class Declared(Wired):
    """A system's own inventory, with the role's variables as site.yml hands them on."""

    roles = (*Wired.roles, "redis", "backup")

    def __init__(self, name: str, directory: Path) -> None:
        inventory, host = SYSTEMS[name]
        source = ROOT / "inventories" / inventory
        example = (source / "group_vars" / "all" / "vault.yml.example").read_text()
        vault = directory / "vault.yml"
        vault.write_text(yaml.safe_dump({"all": {"vars": filled_in(yaml.safe_load(example))}}))
        self.read([source, vault], host, {})

    def render(self, path: str) -> str:
        text = trust_as_template((ROOT / "roles" / path).read_text())
        overrides = {"trim_blocks": True, "lstrip_blocks": True}
        return str(Templar(self.loader, self.variables).template(text, overrides=overrides))


def days(first: str, last: str) -> set[date]:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    return {begin + timedelta(number) for number in range((end - begin).days + 1)}


def dates(*said: str) -> set[date]:
    return {date.fromisoformat(text) for text in said}


TWELVE_MONTHS = dates(
    *("2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30"),
    *("2026-07-31", "2026-08-31", "2026-09-30", "2026-10-31", "2026-11-26"),
)
#: Sundays are the last days of weeks.
FOUR_WEEKS = dates("2026-11-08", "2026-11-15", "2026-11-22", "2026-11-26")
THIRTY_DAYS = days("2026-10-28", "2026-11-26")
KEPT = {
    "InsightPulse": THIRTY_DAYS | TWELVE_MONTHS,
    "Smart Lodge": days("2026-11-22", "2026-11-26") | FOUR_WEEKS | TWELVE_MONTHS,
    "MA Electrical": THIRTY_DAYS,
    "Portun": days("2026-11-20", "2026-11-26") | FOUR_WEEKS | TWELVE_MONTHS,
    "Malar Market": THIRTY_DAYS,
}


def moments(day: date, schedule: str) -> list[datetime]:
    """When cron runs on that day, by the fields as these inventories have them; of an hourly one first and last."""
    found = re.fullmatch(r"(\d+) (\d+|\*) \* \* \*", schedule)
    assert found, f"the test does not know the schedule {schedule}"
    hours = [0, 23] if found[2] == "*" else [int(found[2])]
    return [datetime.combine(day, time(hour, int(found[1])), UTC) for hour in hours]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> restic_lab.Repository:
    root = tmp_path_factory.mktemp("template")
    (root / "file").write_text("what is backed up")
    return restic_lab.Repository(root, root / "file")


def configured(declared: Declared, repository: restic_lab.Repository, etc: Path) -> store.Restic:
    """The program as the role configures it, but for where the repository is."""
    values: dict[str, Any] = declared["__backup_configuration"]
    etc.mkdir()
    (etc / "config.json").write_text(json.dumps({**values, "repository": str(repository.directory)}))
    (etc / "credentials.env").write_text(declared.render("backup/templates/credentials.env.j2"))
    restic = store.Restic(store.Settings(etc))
    restic.environment.update(repository.environment)
    restic.environment["PATH"] = str(Path(restic_lab.program()).parent)
    return restic


@pytest.mark.parametrize("name", SYSTEMS)
def test_after_400_days_exactly_the_plans_backups_remain(
    name: str, template: restic_lab.Repository, tmp_path: Path
) -> None:
    declared = Declared(name, tmp_path)
    repository = template.copy(tmp_path)
    restic = configured(declared, repository, tmp_path / "etc")
    histories = [store.FILES, *(f"database:{database}" for database in restic.settings.databases)]
    newest: dict[date, datetime] = {}
    repository.add(datetime(2025, 1, 1, tzinfo=UTC), "of-another-program")
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(number)
        for moment in moments(day, declared["backup_schedule"]):
            newest[day] = moment
            for history in histories:
                repository.add(moment, store.MARK, history)
        # The program does so after each run; every hundred days gives the same, and is that much quicker.
        if day.toordinal() % 100 == 0 or day == LAST:
            make.forget(restic)
    for history in histories:
        assert repository.snapshots(store.MARK, history) == [newest[day] for day in sorted(KEPT[name])], history
    assert len(repository.snapshots("of-another-program")) == 1


@pytest.mark.parametrize(("name", "kept"), [("Smart Lodge", 30), ("Portun", 7), ("Malar Market", 7)])
def test_any_moment_of_as_many_days_as_the_plan_says_can_be_restored(name: str, kept: int, tmp_path: Path) -> None:
    declared = Declared(name, tmp_path)
    assert declared["shipshape_has"]["pgbackrest"] is True
    rendered = declared.render("pgbackrest/templates/pgbackrest.conf.j2")
    # By time a full backup goes once a younger one covers all of these days; by count it would go with the fourth.
    assert re.findall(r"^repo1-retention-\S+$", rendered, re.MULTILINE) == [
        "repo1-retention-full-type=time", f"repo1-retention-full={kept}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("InsightPulse", "1 * *"),
        ("Smart Lodge", "1 * *"),
        ("MA Electrical", "1 * *"),
        ("Portun", "1 1,4,7,10 *"),
        ("Malar Market", "1 * *"),
    ],
)
def test_a_restore_is_rehearsed_as_often_as_the_plan_says(name: str, when: str, tmp_path: Path) -> None:
    declared = Declared(name, tmp_path)
    cron = declared.render("backup/templates/cron.j2")
    assert re.search(rf"^0 5 {re.escape(when)} root .*shipshape-backup drill", cron, re.MULTILINE), cron
    if declared["shipshape_has"]["pgbackrest"]:
        cron = declared.render("pgbackrest/templates/cron.j2")
        assert re.search(rf"^0 4 {re.escape(when)} root .*shipshape-pgbackrest drill", cron, re.MULTILINE), cron
