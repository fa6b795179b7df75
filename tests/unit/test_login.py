"""What is read of a droplet in the breath of the login."""

from __future__ import annotations

import subprocess

from ansible_collections.shipshape.droplet.plugins.action.login import LOOK, seen

SAID = "environment=production\nprimary=db1 2\nmemory=MemTotal: 2025336 kB\nprocessors=2\nroot=ext4\nrotational=1\n"
NOTED = {"environment": "production", "primary": "db1 2"}


def test_facts_have_the_names_and_units_that_setup_gives_them() -> None:
    facts = {"memtotal_mb": 1977, "processor_vcpus": 2, "mounts": [{"mount": "/", "fstype": "ext4"}]}
    assert seen(SAID) == (NOTED, {**facts, "data_disk": {"rotational": "1"}})
    unknown = SAID.replace("rotational=1", "rotational=")
    assert seen(unknown) == (NOTED, {**facts, "data_disk": {"rotational": ""}})


def test_a_droplet_that_cannot_say_all_of_them_leaves_them_to_setup() -> None:
    assert seen(SAID.replace("root=ext4", "root=")) == (NOTED, {})
    assert seen(SAID.replace("processors=2", "processors=undefined"))[1] == {}
    assert seen("environment=\nmemory=\n") == ({"environment": "", "primary": ""}, {})


def test_the_question_is_answered_by_a_shell() -> None:
    said = subprocess.run(["sh", "-c", LOOK], capture_output=True, text=True, check=True).stdout
    noted, facts = seen(said)
    assert noted == {"environment": "", "primary": ""} and facts["memtotal_mb"] > 100 and facts["processor_vcpus"] >= 1
    assert facts["mounts"][0]["fstype"]
    assert facts["data_disk"]["rotational"] in ("", "0", "1")
