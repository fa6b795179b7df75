"""Code from real repositories: which commit a version means, what is exported, what a torn copy does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import app_git, app_python, app_store, app_system

from tests.unit.app_tools import be_the_app_user, commit, git, repository


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> app_system.Account:
    return be_the_app_user(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = repository(tmp_path / "source")
    commit(path, {"backend/app.py": "1", "backend/sub/x": "x", "README": "r"})
    return path


@pytest.fixture
def mirror(account: app_system.Account, source: Path, tmp_path: Path) -> app_git.Mirror:
    return app_git.Mirror("shop", account, str(tmp_path / "repository"), str(source))


def test_a_branch_a_light_tag_and_an_annotated_tag_each_mean_a_commit(
    account: app_system.Account, source: Path
) -> None:
    first = git(source, "rev-parse", "HEAD")
    git(source, "tag", "light")
    git(source, "tag", "--annotate", "v1.0", "--message", "one")
    second = commit(source, {"README": "2"})
    refs = app_git.list_refs("shop", account, str(source))
    assert refs.find("main") == second
    assert refs.find("light") == refs.find("v1.0") == first != git(source, "rev-parse", "v1.0")


def test_a_tag_goes_before_a_branch_of_the_same_name(account: app_system.Account, source: Path) -> None:
    first = git(source, "rev-parse", "HEAD")
    git(source, "tag", "both")
    git(source, "checkout", "--quiet", "-b", "both")
    commit(source, {"README": "2"})
    assert app_git.list_refs("shop", account, str(source)).find("both") == first


def test_an_unknown_version_is_told_what_there_is(account: app_system.Account, source: Path) -> None:
    git(source, "tag", "v1.0")
    refs = app_git.list_refs("shop", account, str(source))
    assert refs.find("v2.0") == ""
    assert refs.describe() == "it has branches main and tags v1.0"


def test_a_server_that_says_no_is_named_without_the_login_in_its_url(
    account: app_system.Account, tmp_path: Path
) -> None:
    with pytest.raises(app_system.AppError) as error:
        app_git.list_refs("shop", account, f"file://user:geheim@localhost{tmp_path}/nothing.git")
    assert str(error.value).startswith("shop: source: git cannot list file://localhost")
    assert "check source.git" in str(error.value) and "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "cannot resolve that name"),
        ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", "wants a login"),
        ("fatal: unable to access 'https://x/': SSL certificate problem: self signed", "does not trust"),
        ("fatal: repository 'https://x/y.git/' not found", "there is no such repository"),
        ("fatal: unable to access: Failed to connect to x port 443", "whether the droplet reaches the server"),
    ],
)
def test_each_usual_reason_has_its_advice(said: str, advice: str) -> None:
    assert advice in app_git.explain(said)


def test_only_the_folder_is_exported_without_history(mirror: app_git.Mirror, source: Path, tmp_path: Path) -> None:
    mirror.fetch()
    target = tmp_path / "out"
    target.mkdir()
    mirror.export(git(source, "rev-parse", "HEAD"), "backend", str(target))
    assert sorted(path.name for path in target.rglob("*")) == ["app.py", "sub", "x"]


def test_the_whole_repository_is_exported_when_no_folder_is_named(
    mirror: app_git.Mirror, source: Path, tmp_path: Path
) -> None:
    mirror.fetch()
    (tmp_path / "out").mkdir()
    mirror.export(git(source, "rev-parse", "HEAD"), ".", str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["README", "backend"]


@pytest.mark.parametrize("path", ["frontend", "README", "../..", "backend/nothing"])
def test_a_folder_that_is_none_is_refused_with_those_there_are(
    mirror: app_git.Mirror, source: Path, tmp_path: Path, path: str
) -> None:
    mirror.fetch()
    with pytest.raises(
        app_system.AppError, match=r"shop: source: folder .* is not in commit .*; folders there: backend"
    ):
        mirror.export(git(source, "rev-parse", "HEAD"), path, str(tmp_path))


def test_a_rewritten_branch_is_followed(mirror: app_git.Mirror, source: Path) -> None:
    mirror.fetch()
    (source / "README").write_text("rewritten", encoding="utf-8")
    git(source, "commit", "--quiet", "--all", "--amend", "--message", "rewritten")
    mirror.fetch()
    assert mirror.commit("main") == git(source, "rev-parse", "HEAD")


@pytest.mark.parametrize("wreck", ["HEAD.lock", "packed-refs.lock", "config", "refs/heads/main.lock"])
def test_a_copy_that_a_killed_git_has_left_torn_is_fetched_anew(
    mirror: app_git.Mirror, source: Path, wreck: str
) -> None:
    mirror.fetch()
    Path(mirror.path, wreck).parent.mkdir(parents=True, exist_ok=True)
    Path(mirror.path, wreck).write_text("", encoding="utf-8")
    new = commit(source, {"README": "2"})
    git(source, "tag", "v2")
    mirror.fetch()
    assert mirror.commit(new) == new and mirror.commit("v2") == new


def test_a_moved_repository_is_fetched_from_its_new_place(mirror: app_git.Mirror, source: Path, tmp_path: Path) -> None:
    mirror.fetch()
    moved = source.rename(tmp_path / "moved")
    mirror.url = str(moved)
    new = commit(moved, {"README": "2"})
    mirror.fetch()
    assert mirror.commit("main") == new


def key(path: Path, revision: str = "c1", python: str = "3.11") -> str:
    return str(app_python.Requirements(str(path)).key(python, revision))


def test_releases_with_the_same_requirements_share_a_virtualenv_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more.txt\nfastapi==1\n", encoding="utf-8")
    (tmp_path / "more.txt").write_text("uvicorn==1\n", encoding="utf-8")
    first = key(tmp_path)
    assert key(tmp_path, revision="c2") == first
    assert key(tmp_path, python="3.13") != first
    (tmp_path / "more.txt").write_text("uvicorn==2\n", encoding="utf-8")
    assert key(tmp_path) != first


@pytest.mark.parametrize("line", ["-e .", ".", "./vendor/x.whl", "x @ file:///srv/x", "--editable ./lib", "file:./x"])
def test_requirements_that_need_the_code_itself_get_a_virtualenv_for_each_commit(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(line + "\n", encoding="utf-8")
    assert key(tmp_path, revision="c1") != key(tmp_path, revision="c2")


def test_a_project_without_requirements_is_installed_itself(tmp_path: Path) -> None:
    assert app_python.Requirements(str(tmp_path)).arguments == []
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    assert app_python.Requirements(str(tmp_path)).arguments == ["."]
    assert key(tmp_path, revision="c1") != key(tmp_path, revision="c2")


def test_requirements_outside_the_source_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "requirements.txt").write_text("-r ../secret\n", encoding="utf-8")
    assert list(app_python.Requirements(str(tmp_path / "src")).texts) == ["requirements.txt"]


def test_a_virtualenv_without_its_record_is_made_anew(
    account: app_system.Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(account: app_system.Account, command: list[str], **options: int) -> tuple[int, str]:
        without_pip = ["--without-pip"] if "venv" in command else []  # which takes seconds
        code, output = app_system.run(account, [*command, *without_pip], **options)
        return code, output

    monkeypatch.setattr(app_python, "run", run)
    source = tmp_path / "src"
    source.mkdir()
    store = app_store.Store("shop", str(tmp_path))
    Path(store.venvs).mkdir()
    made, new = app_python.ensure_venv(store, account, str(source), "c1")
    assert new and Path(store.venvs, made, "bin", "python").exists()
    assert app_python.ensure_venv(store, account, str(source), "c2") == (made, False)
    Path(store.venvs, made + ".json").unlink()
    Path(store.venvs, made, "torn").write_text("", encoding="utf-8")
    assert app_python.ensure_venv(store, account, str(source), "c1") == (made, True)
    assert not Path(store.venvs, made, "torn").exists()
