"""Facts of a droplet from one line of shell, under the names and in the units that `setup` has for them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

#: `setup` costs two thirds of a second for these alone: it is put together, sent, and runs lsblk and dmidecode. The
#: addresses are of nets for documentation, whose route is the default route; nothing is sent there.
LOOK = (
    "echo memory=$(grep MemTotal /proc/meminfo); echo processors=$(getconf _NPROCESSORS_ONLN); "
    "echo root=$(findmnt --noheadings --output FSTYPE /); "
    'disk=/sys/dev/block/$(findmnt --noheadings --output MAJ:MIN --target /var/lib | tr -d " "); '
    "echo rotational=$(cat $disk/queue/rotational $disk/../queue/rotational 2>/dev/null | head -n 1); "
    "grep -E '^(ID|VERSION_ID|VERSION_CODENAME)=' /etc/os-release; echo debian=$(cat /etc/debian_version 2>/dev/null); "
    "echo virtualization=$(systemd-detect-virt); "
    "echo route4=$(ip -4 -oneline route get 192.0.2.1 2>/dev/null); "
    "echo route6=$(ip -6 -oneline route get 2001:db8::1 2>/dev/null); "
    "echo nameservers=$(sed -n 's/^nameserver *//p' /etc/resolv.conf 2>/dev/null)"
)
DISTRIBUTIONS = {"debian": "Debian", "ubuntu": "Ubuntu"}


def facts(said: Mapping[str, str]) -> dict[str, Any]:
    """From the words of LOOK by name; empty when one of them is missing, so that `setup` is asked for all."""
    words = {name: "".join(shlex.split(text)) if name.isupper() else text.strip() for name, text in said.items()}
    memory = words.get("memory", "").split()
    found: dict[str, Any] = {
        # "MemTotal: 2025336 kB"
        "memtotal_mb": int(memory[1]) // 1024 if len(memory) == 3 else None,
        "processor_vcpus": int(words["processors"]) if words.get("processors", "").isdigit() else None,
        "mounts": [{"mount": "/", "fstype": words["root"]}] if words.get("root") else None,
        "distribution": DISTRIBUTIONS.get(words.get("ID", "")),
        "distribution_version": version(words) or None,
        "distribution_major_version": words.get("VERSION_ID", "").partition(".")[0] or None,
        "distribution_release": words.get("VERSION_CODENAME") or None,
        "virtualization_type": words.get("virtualization") or None,
    }
    if None in found.values():
        return {}
    bare = found["virtualization_type"] == "none"
    return {
        **found,
        **({"virtualization_type": "NA", "virtualization_role": "NA"} if bare else {"virtualization_role": "guest"}),
        "default_ipv4": route(words.get("route4", "")),
        "default_ipv6": route(words.get("route6", "")),
        "dns": {"nameservers": words.get("nameservers", "").split()},
        # A disk that is none of the kernel's, as a container's, has no kind. `setup` has no such fact.
        "data_disk": {"rotational": words.get("rotational", "")},
    }


def version(words: Mapping[str, str]) -> str:
    """With the point release, which Debian keeps in a file of its own."""
    number, debian = words.get("VERSION_ID", ""), words.get("debian", "")
    return debian if words.get("ID") == "debian" and debian.startswith(f"{number}.") else number


def route(line: str) -> dict[str, str]:
    """Where a packet to anywhere goes out, from `192.0.2.1 via 10.0.0.1 dev eth0 src 10.0.0.2 uid 0`."""
    words = line.split()
    names = {"src": "address", "dev": "interface", "via": "gateway"}
    found = {names[word]: value for word, value in zip(words, words[1:], strict=False) if word in names}
    return found if "address" in found else {}
