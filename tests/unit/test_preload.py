"""Filters and tests are there before the first worker is forked."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.shipshape.droplet.plugins.callback.preload import CallbackModule

ROOT = Path(__file__).parents[2]
#: Loaded by a worker this would print another process than the one of the callback.
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ [] | shipshape.droplet.sshd_lines if false else '1' | int }}"
"""


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_there_is_taken_out_of_the_sight_of_the_collector() -> None:
    before = gc.get_freeze_count()
    CallbackModule().v2_playbook_on_start(None)
    assert gc.get_freeze_count() > before + 1000


def test_a_run_of_a_playbook_loads_our_filters_in_the_parent(tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK)
    script = (
        "import os, sys\n"
        "from ansible.plugins.loader import Jinja2Loader\n"
        "load = Jinja2Loader._load_module_source\n"
        "def told(self, *, python_module_name, path):\n"
        "    if python_module_name not in sys.modules: print('loads', os.getpid(), python_module_name, flush=True)\n"
        "    return load(self, python_module_name=python_module_name, path=path)\n"
        "Jinja2Loader._load_module_source = told\n"
        "print('parent', os.getpid(), flush=True)\n"
        "from ansible.cli.playbook import main\n"
        f"sys.argv = ['ansible-playbook', {str(playbook)!r}]\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    parent = run.stdout.partition("parent ")[2].split()[0]
    loads = [line.split()[1:] for line in run.stdout.splitlines() if line.startswith("loads ")]
    assert {process for process, _ in loads} == {parent}, run.stdout
    assert any("shipshape" in module for _, module in loads), run.stdout
