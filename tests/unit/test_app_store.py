"""Releases on disk: which one is live, which is half-made, which a rollback leads to, which go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_store, app_system

from tests.unit.app_tools import be_the_app_user, store_with

A, B, C, D = (f"2026010{day}T000000Z-aaaaaa{day}" for day in range(1, 5))


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    be_the_app_user(monkeypatch)


def test_ids_sort_by_time_and_show_the_commit(tmp_path: Path) -> None:
    made = app_store.Store("shop", str(tmp_path)).new_id("0123456789abcdef")
    assert app_store.RELEASE_ID.fullmatch(made) and made.endswith("-0123456") and made > D


def test_a_directory_without_a_record_is_half_made_whatever_is_in_it(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, current=A)
    Path(store.releases_directory, B, "src").mkdir(parents=True)
    Path(store.releases_directory, C).mkdir()
    Path(store.releases_directory, C, "release.json").write_text('{"commit": "c', encoding="utf-8")
    assert [release.id for release in store.leftovers()] == [B, C]
    assert store.release(B) is None and store.release(C) is None


def test_a_release_that_was_built_but_never_live_is_left_over_and_the_live_one_never_is(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B, "activated": ""}, {"id": C, "activated": ""})
    store.switch(C)  # killed between the switch and the first good answer
    assert [release.id for release in store.leftovers()] == [B]


def test_foreign_directories_are_let_alone(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, current=A)
    Path(store.releases_directory, "notes").mkdir()
    assert [release.id for release in store.releases()] == [A]


def test_the_switch_replaces_the_link_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B}, current=A)
    os.symlink("releases/torn", store.current_link + ".new")
    store.switch(B)
    assert (store.current, os.readlink(store.current_link)) == (B, f"releases/{B}")
    assert not os.path.lexists(store.current_link + ".new")


def test_a_rollback_leads_to_the_release_before_and_passes_over_those_given_up(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B}, {"id": C, "rolled_back": "2026-01-03"}, {"id": D}, current=D)
    previous = store.previous()
    assert previous is not None and previous.id == B


def test_the_first_release_has_nothing_before_it(tmp_path: Path) -> None:
    assert store_with(tmp_path, {"id": A}, current=A).previous() is None


def test_pruning_keeps_the_live_release_and_the_one_a_rollback_needs_however_old(tmp_path: Path) -> None:
    given_up = {"rolled_back": "2026-01-05"}
    store = store_with(tmp_path, {"id": A}, {"id": B}, {"id": C, **given_up}, {"id": D, **given_up}, current=B)
    assert store.prune(keep=1) == [D, C]
    assert [release.id for release in store.releases()] == [A, B]


def test_pruning_keeps_as_many_as_declared_the_newest_first(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B}, {"id": C}, {"id": D}, current=D)
    assert store.prune(keep=3) == [A]


def test_a_virtualenv_goes_with_its_last_release(tmp_path: Path) -> None:
    store = store_with(
        tmp_path, {"id": A, "venv": "old"}, {"id": B, "venv": "new"}, {"id": C, "venv": "new"}, current=C
    )
    for key in ("old", "new"):
        Path(store.venvs, key, "bin").mkdir(parents=True)
        Path(store.venvs, key + ".json").write_text("{}", encoding="utf-8")
    store.prune(keep=2)
    assert sorted(os.listdir(store.venvs)) == ["new", "new.json"]


def test_confirming_notes_the_unit_it_ran_under(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A, "activated": ""})
    store.units = str(tmp_path)
    unit = tmp_path / "shop@green.service"
    unit.write_text("[Service]\n", encoding="utf-8")
    store.switch(A)
    assert store.healthy == ""
    store.confirm(A, "green")
    assert (store.healthy, store.colour, store.live_unit) == (A, "green", "shop@green.service")
    assert store.activation["unit"] == store.unit_digest("green")
    unit.write_text("[Service]\nUser=x\n", encoding="utf-8")
    assert store.activation["unit"] != store.unit_digest("green")


def test_a_droplet_with_one_unit_of_old_serves_on_blues_port(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, current=A)
    store.units = str(tmp_path)
    assert store.colour == ""
    (tmp_path / "shop.service").write_text("[Service]\n", encoding="utf-8")
    assert (store.colour, store.live_unit) == ("blue", "shop.service")
    assert store.idle_units() == ["shop@blue.service", "shop@green.service"]
    store.confirm(A, "green")
    assert (store.colour, store.live_unit) == ("green", "shop@green.service")
    assert store.idle_units() == ["shop@blue.service", "shop.service"]


def test_what_runs_under_a_colour_is_not_left_over(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B, "activated": ""}, {"id": C, "activated": ""}, current=A)
    store.point("green", B)  # killed while it was watched
    assert [release.id for release in store.leftovers()] == [C]
    store.point("green", "")
    assert [release.id for release in store.leftovers()] == [B, C]


def test_a_way_back_over_a_migration_says_so(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B, "migrated": "2026-01-02T00:00:00Z"}, {"id": C}, current=C)
    first, second, *_ = store.releases()
    assert (store.migrations_after(first), store.migrations_after(second)) == ([B], [])


def test_a_second_run_waits_for_the_first_and_then_says_who_holds_the_app(tmp_path: Path) -> None:
    with app_system.locked("shop", str(tmp_path), "lock"):
        with pytest.raises(app_system.AppError, match=r"shop: lock: another run is at work on this app .*fuser -v"):
            with app_system.locked("shop", str(tmp_path), "lock", patience=0):
                pass
    with app_system.locked("shop", str(tmp_path), "lock", patience=0):
        pass


def test_an_app_stays_locked_while_a_command_of_a_killed_run_goes_on(tmp_path: Path) -> None:
    handle = -1
    with app_system.locked("shop", str(tmp_path), "lock") as lock:
        handle = os.dup(lock)  # as a child has it
    with pytest.raises(app_system.AppError):
        with app_system.locked("shop", str(tmp_path), "lock", patience=0):
            pass
    os.close(handle)


def test_a_build_that_a_later_run_has_overtaken_knows_it(tmp_path: Path) -> None:
    store = app_store.Store("shop", str(tmp_path))
    assert not store.is_overtaken("20260101T000000Z-aaaaaaa")
    store.plan("20260101T000000Z-aaaaaaa")
    assert not store.is_overtaken("20260101T000000Z-aaaaaaa")
    store.plan("20260101T000009Z-aaaaaaa")
    assert store.is_overtaken("20260101T000000Z-aaaaaaa")


def test_a_run_that_looks_at_an_app_takes_it_over_from_a_build_that_has_not_begun(tmp_path: Path) -> None:
    """A dead controller's worker goes on with the next app of its loop; nobody would activate what it builds."""
    store = store_with(tmp_path, {"id": A}, current=A)
    store.plan(B)
    store.take_over()
    assert store.is_overtaken(B)


def test_a_run_that_looks_at_an_app_lets_what_is_built_be(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"id": A}, {"id": B}, current=A)
    store.plan(B)
    store.take_over()
    assert not store.is_overtaken(B)
