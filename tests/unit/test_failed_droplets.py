"""What becomes of the others when a droplet fails in the middle of a run, played by Ansible on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from test_validation_playbook import ROOT, play

#: What the plays of the repository do around the tasks, with something that goes wrong before them on one host.
PLAY = """
- name: Bring every droplet to production
  hosts: all
  gather_facts: false
  vars_files: [{root}/playbooks/vars/wiring.yml]
  tasks:
    - name: PostgreSQL | Start
      ansible.builtin.ping:
      failed_when: inventory_hostname == broken | default('')
    - name: Apps
      ansible.builtin.import_tasks: {root}/playbooks/tasks/database_passwords.yml
    - name: Apps | Change
      ansible.builtin.debug:
        msg: "{{{{ inventory_hostname }}}} has {{{{ shipshape_database_passwords }}}}"
"""
REPLICAS = """
- name: Have the replicas follow the primary
  hosts: database
  gather_facts: false
  vars_files: [{root}/playbooks/vars/wiring.yml]
  tasks:
    - name: PostgreSQL | Start
      ansible.builtin.ping:
      failed_when: inventory_hostname == broken | default('')
    - name: Replicas
      ansible.builtin.import_tasks: {root}/playbooks/tasks/replicas.yml
"""
GROUPS = {"proxy": ["edge", "other"], "app": ["front"], "database": ["store", "copy"]}
GIT = {"git": "https://git.test/desk.git"}
#: No password has to be read for it.
DESK = {"type": "command", "source": GIT, "command": "desk", "database": {"password": "p"}}


def inventory(folder: Path, hosts: dict[str, dict[str, Any]] | None = None, **desk: Any) -> Path:
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    names = [name for members in GROUPS.values() for name in members]
    addresses = {name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(names)}
    made: dict[str, Any] = {
        group: {"hosts": {name: {**addresses[name], **local, **(hosts or {}).get(name, {})} for name in members}}
        for group, members in GROUPS.items()
    }
    web = {"type": "static", "source": GIT, "domains": ["web.test"]}
    made["all"] = {"vars": {"admins": [], "apps": {"desk": {**DESK, **desk}, "web": web}}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def played(folder: Path, source: Path, *arguments: str, text: str = PLAY) -> str:
    path = folder / "play.yml"
    path.write_text(text.format(root=ROOT))
    # What is to stop could touch this machine where it does not.
    done = play(folder, "-i", str(source), "--check", *arguments, playbook=str(path))
    # The lines of a message are folded.
    return " ".join((done.stdout + done.stderr).split())


def test_where_nothing_fails_all_go_on(tmp_path: Path) -> None:
    said = played(tmp_path, inventory(tmp_path, domains=["desk.test"]))
    assert "front has {}" in said and "failed=1" not in said, said


def test_apps_are_left_as_they_are_when_the_host_of_their_database_fails_and_others_go_on(tmp_path: Path) -> None:
    said = played(tmp_path, inventory(tmp_path), "-e", "broken=store")
    assert (
        "store failed in this run (see above), and the apps of front need what is there: the database of desk. "
        "They were left as they were. Once store is mended, type the same command again."
    ) in said, said
    assert "front has" not in said and "edge has {}" in said and "copy has {}" in said, said


def test_a_host_that_cannot_be_reached_has_failed_too(tmp_path: Path) -> None:
    gone = {"store": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}}
    said = played(tmp_path, inventory(tmp_path, gone))
    assert "UNREACHABLE" in said and "store failed in this run" in said and "front has" not in said, said


def test_no_migration_runs_for_a_release_that_its_proxy_cannot_be_led_to(tmp_path: Path) -> None:
    broken = ("-e", "broken=other")
    said = played(tmp_path, inventory(tmp_path, domains=["desk.test"]), *broken)
    assert "other failed in this run" in said and "the proxy of desk." in said and "front has" not in said, said
    said = played(tmp_path, inventory(tmp_path), *broken)
    assert "front has {}" in said, said


def test_a_host_that_the_run_leaves_out_has_not_failed(tmp_path: Path) -> None:
    said = played(tmp_path, inventory(tmp_path), "-e", "broken=store", "--limit", "front")
    assert "front has {}" in said, said


def test_a_copy_is_left_as_it_is_when_its_primary_fails(tmp_path: Path) -> None:
    said = played(tmp_path, inventory(tmp_path), "-e", "broken=store", text=REPLICAS)
    assert "store failed in this run (see above), and has the databases that copy copies. The copy was" in said, said
    assert "Read the passwords that the primary has generated" not in said, said
