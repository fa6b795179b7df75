"""Repositories over ssh: what a deploy key may be, how long it is there, and what is said when a server says no."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter.app_specs import app_deploy_keys, app_specs
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_arguments,
    app_deploy_key,
    app_git,
    app_source,
    app_system,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_deploy_key import Access
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.unit.app_tools import be_the_app_user, commit, repository

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJy/mOO0m/lkKoKNf7CxSmgTtGlHxbRObo2ShCQDcLNB"
URL = "git@git.test:team/shop.git"
PAIR = ed25519.Ed25519PrivateKey.generate()
PUBLIC = PAIR.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def text_of(pair: Any, form: PrivateFormat = PrivateFormat.OpenSSH, passphrase: bytes = b"") -> str:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return str(pair.private_bytes(Encoding.PEM, form, encryption).decode("ascii"))


KEY = text_of(PAIR)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> app_system.Account:
    monkeypatch.setattr(app_deploy_key, "FOLDER", str(tmp_path / "run"))
    return be_the_app_user(monkeypatch)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("git@github.com:team/app.git", ("github.com", 22)),
        ("deploy@Git.Test:app.git", ("git.test", 22)),
        ("git.test:app.git", ("git.test", 22)),
        ("git@[2001:db8::7]:app.git", ("2001:db8::7", 22)),
        ("ssh://git@git.test/app.git", ("git.test", 22)),
        ("ssh://git@git.test:2222/app.git", ("git.test", 2222)),
        ("git+ssh://git@git.test:2222/app.git", ("git.test", 2222)),
        ("https://git.test/app.git", ("", 0)),
        ("/srv/git/app.git", ("", 0)),
        ("file:///srv/git/app.git", ("", 0)),
    ],
)
def test_each_form_of_an_address_over_ssh_names_its_server(url: str, server: tuple[str, int]) -> None:
    assert app_deploy_key.server_of(url) == server


#: By name, since a test that is called otherwise in each process cannot be handed out to several.
KEYS = {
    "openssh": (KEY, ""),
    "other line ends": (KEY.replace("\n", "\r\n") + "\n\n", ""),
    "indented": (textwrap.indent(KEY, "  ").rstrip(), ""),
    "rsa": (text_of(rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL), ""),
    "pkcs8": (text_of(PAIR, PrivateFormat.PKCS8), ""),
    "pkcs8 with a passphrase": (text_of(PAIR, PrivateFormat.PKCS8, b"secret"), "with a passphrase"),
    "one line": (" ".join(KEY.split("\n")), "whose lines became one"),
    "half": (KEY[:200], "cut short"),
    "a line lost": (KEY.replace(KEY.splitlines()[2], ""), "cut short"),
    "public": (f"{PUBLIC} laptop", "a public key"),
    "something else": ("geheim", "no private key"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_deploy_key_is_a_whole_private_key_without_a_passphrase(name: str) -> None:
    key, found = KEYS[name]
    said = app_deploy_key.fault(key)
    assert found in said and bool(said) == bool(found)


def test_a_passphrase_is_seen_in_openssh_s_own_form_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    assert app_deploy_key.fault(path.read_text(encoding="ascii")) == "a private key with a passphrase"


@pytest.mark.parametrize(
    "line", [HOST_KEY, f"{HOST_KEY} root@git", f"[git.test]:22 {HOST_KEY}", f"git.test {HOST_KEY}\n"]
)
def test_a_host_key_is_taken_as_every_tool_prints_it(line: str) -> None:
    assert app_deploy_key.host_key_of(line) == HOST_KEY


def options_of(extra: dict[str, str]) -> dict[str, str]:
    words = shlex.split(extra["GIT_SSH_COMMAND"])
    return dict(word[2:].split("=", 1) for word in words if word.startswith("-o"))


def test_the_key_is_there_while_git_talks_to_the_server_and_not_a_moment_longer(account: app_system.Account) -> None:
    access = Access(KEY.replace("\n", "\r\n"), HOST_KEY)
    with pytest.raises(RuntimeError), access.environment("shop", account, URL) as extra:
        options = options_of(extra)
        key, hosts = Path(options["IdentityFile"]), Path(options["UserKnownHostsFile"])
        assert (key.read_text(encoding="ascii"), key.stat().st_mode & 0o777) == (KEY, 0o600)
        assert hosts.read_text(encoding="ascii") == f"git.test {HOST_KEY}\n"
        assert (options["StrictHostKeyChecking"], options["HostKeyAlias"]) == ("yes", "git.test")
        assert KEY.splitlines()[1] not in json.dumps(extra)
        raise RuntimeError("whatever happens")
    assert os.listdir(app_deploy_key.FOLDER) == [] and access.public == PUBLIC


def test_the_key_of_a_killed_run_goes_with_the_next_and_that_of_one_at_work_stays(account: app_system.Account) -> None:
    folder = Path(app_deploy_key.FOLDER)
    child = os.fork()
    if not child:
        with app_deploy_key._folder() as path:
            Path(path, "key").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    left = os.listdir(folder)
    assert len(left) == 1 and (folder / left[0] / "key").exists()
    with Access(KEY, HOST_KEY).environment("shop", account, URL) as extra:
        app_deploy_key.clear()
        assert [Path(options_of(extra)["IdentityFile"]).parent.name] == os.listdir(folder) != left


def test_without_a_key_nothing_is_written(account: app_system.Account) -> None:
    with Access().environment("shop", account, "https://git.test/shop.git") as extra:
        assert extra == {} and not os.path.exists(app_deploy_key.FOLDER)


def test_the_keys_of_the_large_providers_are_known_and_any_other_has_to_be_given(account: app_system.Account) -> None:
    with Access(KEY).environment("shop", account, "git@github.com:team/shop.git") as extra:
        hosts = Path(options_of(extra)["UserKnownHostsFile"]).read_text(encoding="ascii")
    assert hosts == f"github.com {app_deploy_key.WELL_KNOWN['github.com']}\n"
    with pytest.raises(
        app_system.AppError, match=r"^shop: source: source.host_key is missing, .*ssh-keyscan .*-p 2222"
    ):
        with Access(KEY).environment("shop", account, "ssh://git@git.test:2222/shop.git"):
            pass


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the ED25519 key sent by the remote host is
SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU.
Host key verification failed.
fatal: Could not read from remote repository."""


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("git@git.test: Permission denied (publickey).\nfatal: Could not read", "does not accept .*: ssh-ed25519 AAAA"),
        (CHANGED, r"another host key \(SHA256:\+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU\) than source.host_key"),
        ("ssh: connect to host git.test port 22: Connection refused", "git.test does not answer on port 22"),
        ("ssh: connect to host git.test port 22: Connection timed out", "git.test does not answer on port 22"),
        (
            "ERROR: Repository not found.\nfatal: Could not read",
            "no such repository, or the deploy key is another one's",
        ),
        ("fatal: '/srv/x' does not appear to be a git repository", "no such repository, or the deploy key"),
        ("ssh: Could not resolve hostname git.test: Name or service not known", "cannot resolve that name"),
    ],
)
def test_what_a_server_says_over_ssh_has_its_advice(account: app_system.Account, said: str, advice: str) -> None:
    access = Access(KEY, HOST_KEY)
    access.public = PUBLIC
    with pytest.raises(app_system.AppError, match=f"^shop: source: git cannot list git@git.test.*{advice}"):
        raise app_git.refused("shop", "source", "list", URL, said, access)


def test_a_server_that_refuses_the_key_is_not_asked_again(
    account: app_system.Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def run(_account: Any, command: list[str], **_: Any) -> tuple[int, str]:
        asked.append(command)
        return 128, "git@git.test: Permission denied (publickey)."

    monkeypatch.setattr(app_git, "run", run)
    with pytest.raises(app_system.AppError):
        app_git.list_refs("shop", account, URL, Access(KEY, HOST_KEY))
    assert len(asked) == 1
    mirror = app_git.Mirror("shop", account, str(tmp_path), URL, access=Access(KEY, HOST_KEY))
    monkeypatch.setattr(mirror, "_prepare", lambda: None)
    with pytest.raises(app_system.AppError, match=r"^shop: fetch: git cannot fetch"):
        mirror.fetch()
    assert len(asked) == 2


def row(name: str, **source: str) -> dict[str, Any]:
    return {"name": name, "type": "static", "directory": f"/srv/{name}", "source": {"git": URL, **source}}


def test_the_key_is_sealed_and_a_change_of_it_is_no_new_release() -> None:
    with_key = row("shop", deploy_key=KEY, host_key=HOST_KEY)
    assert KEY.splitlines()[1] not in json.dumps(app_specs([with_key]))
    fingerprint = app_specs([with_key])["shop"]["settings_fingerprint"]
    assert fingerprint == app_specs([row("shop")])["shop"]["settings_fingerprint"]
    module = SimpleNamespace(params={"deploy_keys": app_deploy_keys([with_key, row("b")])}, no_log_values=set())
    found = app_arguments.accesses(module, list(app_specs([with_key, row("b")]).values()))
    assert (found["shop"].key, found["shop"].host_key, found["b"].key) == (KEY, HOST_KEY, "")
    assert set(KEY.splitlines()[1:-1]) == module.no_log_values
    assert app_deploy_keys([with_key], "b") == app_deploy_keys([])


def test_apps_of_one_repository_ask_once_unless_their_keys_differ(
    account: app_system.Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = repository(tmp_path / "source")
    commit(source, {"a": "1"})
    asked: list[str] = []

    def list_refs(app: str, _account: Any, _url: str, access: Access) -> app_git.Refs:
        asked.append(f"{app} {access.host_key}")
        return app_git.list_refs(app, account, str(source))

    monkeypatch.setattr(app_source, "list_refs", list_refs)
    apps = [{**spec, "user": account.name} for spec in app_specs([row(name) for name in "abc"]).values()]
    refs = app_source.remote_refs(apps, {"a": Access(KEY, HOST_KEY), "c": Access(KEY, HOST_KEY)})
    assert sorted(asked) == sorted([f"a {HOST_KEY}", "b "])
    assert all(refs[name].find("main") for name in "abc")


def test_on_a_bare_host_check_mode_asks_nobody_with_a_key(account: app_system.Account) -> None:
    apps = [{**app_specs([row("shop")])["shop"], "user": "nobody-has-this-name"}]
    assert app_source.remote_refs(apps, {"shop": Access(KEY, HOST_KEY)}) == {}
