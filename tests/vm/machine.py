"""Virtual machines with a kernel, a disk and a power switch of their own, beside the droplets in the lab's network."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import droplet, settings, trust
from tests.lab.engine import LabError, docker, ensure_network, exclusive, inspect, say, stage
from tests.lab.host import ensure_program, privileged
from tests.vm.image import ensure_image

MACHINES = settings.STATE / "vm" / "machines"
PROGRAM = "qemu-system-x86_64"
MEMORY_MB, PROCESSORS = 2048, 2
#: Without hardware's help a boot takes half a minute on a quiet machine, and several times that on a busy one.
BOOT_TIMEOUT = 300
MACHINE = ("-nodefaults", "-display", "none", "-machine", "q35")
# A kernel that was told of a processor's mitigations may not be able to hand that on to a machine within its own.
KVM = ("-accel", "kvm", "-cpu", "max,-arch-capabilities")
SOFTWARE = ("-accel", "tcg,tb-size=512", "-cpu", "max")
PROBE_TIMEOUT = 15
KEEP = "SHIPSHAPE_KEEP_VM"


@dataclass(frozen=True)
class Machine:
    name: str
    address: str
    domains: tuple[str, ...] = ()
    release: str = settings.DEFAULT_RELEASE

    @property
    def folder(self) -> Path:
        return MACHINES / self.name

    # -- power --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new, bare machine, whatever was left of an older one; returns once root gets in."""
        ensure_program(PROGRAM, packages=("qemu-system-x86",))
        ensure_program("ip", packages=("iproute2",))
        trust.ensure_keys()
        ensure_network()
        image = ensure_image(self.release)
        remove(self.name)
        with stage(f"machine {self.name}"):
            self.folder.mkdir(parents=True)
            for part in ("vmlinuz", "initrd.img", "disk.img"):
                copy = ["cp", "--sparse=always", "--reflink=auto", str(image / part), str(self.folder / part)]
                subprocess.run(copy, check=True, stdin=subprocess.DEVNULL)
            droplet.forget_host_key(self.address)
            self._lead_domains_here()
            self.switch_on()
            self.wait_for("root")
        say(f"{self.name}: kernel {self.ssh('uname -r', 'root')}, address {self.address}")

    def switch_on(self) -> None:
        """Power on, with the lab's services where they are now; returns before the machine has booted."""
        (self.folder / "seed.tar").write_bytes(self._seed())
        tap = tap_of(self.address)
        self._plug_in(tap)
        command = [
            *(PROGRAM, "-name", self.name, *MACHINE, *accelerator(ensure_image(self.release) / "vmlinuz")),
            *("-smp", str(PROCESSORS), "-m", str(MEMORY_MB)),
            *("-kernel", self._file("vmlinuz"), "-initrd", self._file("initrd.img")),
            *("-append", "root=/dev/vda rw console=ttyS0"),
            *("-serial", f"file:{self._file('console.log')}"),
            # Not to wait for the controller's own disk: a power cut here is the end of a process, and what it has
            # written until then stays written.
            *("-drive", f"file={self._file('disk.img')},format=raw,if=virtio,cache=unsafe"),
            *("-drive", f"file={self._file('seed.tar')},format=raw,if=virtio,readonly=on"),
            *("-netdev", f"tap,id=lab,ifname={tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=lab,mac={mac_of(self.address)}", "-device", "virtio-rng-pci"),
            *("-daemonize", "-pidfile", self._file("pid")),
        ]
        result = subprocess.run(privileged(command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                check=False, timeout=60)  # fmt: skip
        if result.returncode != 0:
            raise LabError(f"{PROGRAM} did not start:\n{result.stderr.strip()}")

    def cut_power(self) -> None:
        """As when somebody pulls the plug: what the kernel had not written to the disk yet is lost."""
        kill(self.folder)

    def power_cycle(self, user: str, port: int = 22) -> None:
        with stage(f"power cut of {self.name}"):
            self.cut_power()
            self.switch_on()
            self.wait_for(user, port)

    def reboot(self, user: str, port: int = 22) -> float:
        """An orderly restart; returns the seconds until the user gets in again."""
        before, began = self.boot_id(user, port), time.monotonic()
        with stage(f"reboot of {self.name}"):
            # The machine may be gone before it has said goodbye.
            self.try_ssh("systemctl reboot", user, port)
            self._until(lambda: self.boot_id(user, port) not in ("", before), "did not come back")
        return time.monotonic() - began

    def boot_id(self, user: str, port: int = 22) -> str:
        return self.try_ssh("cat /proc/sys/kernel/random/boot_id", user, port)

    def wait_for(self, user: str, port: int = 22) -> None:
        """Until that user gets in and systemd has settled, whether or not all units are well."""
        script = "systemctl is-system-running --wait || true"
        self._until(lambda: self.try_ssh(script, user, port) != "", f"did not let {user} in")

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                console = (self.folder / "console.log").read_text(encoding="utf-8", errors="replace")
                raise LabError(f"{self.name} {complaint} within {BOOT_TIMEOUT} s. Its console:\n{console[-3000:]}")
            time.sleep(0.5)

    # -- commands -----------------------------------------------------------------------------------------------------

    def ssh_command(self, script: str, user: str, port: int = 22) -> list[str]:
        options = (
            f"IdentityFile={settings.SSH_KEY}",
            f"UserKnownHostsFile={settings.KNOWN_HOSTS}",
            "StrictHostKeyChecking=accept-new",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ControlPath=none",
            "ConnectTimeout=5",
            "ServerAliveInterval=5",
        )
        command = ["ssh", *(f"-o{option}" for option in options), "-p", str(port), f"{user}@{self.address}"]
        return [
            *command,
            ("" if user == "root" else "sudo -n ") + f"bash --norc -euo pipefail -c {shlex.quote(script)}",
        ]

    def ssh(self, script: str, user: str, port: int = 22, timeout: int = 120) -> str:
        """What a script prints that root runs on the machine, logged in as the user; it must succeed."""
        command = self.ssh_command(script, user, port)
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert result.returncode == 0, f"on {self.name}: {script}\n{result.stdout}\n{result.stderr}"
        return result.stdout.strip()

    def try_ssh(self, script: str, user: str, port: int = 22, timeout: int = 30) -> str:
        """The same, where no answer is an answer too."""
        command = self.ssh_command(script, user, port)
        with contextlib.suppress(subprocess.TimeoutExpired):
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
            )
            return result.stdout.strip() if result.returncode == 0 else ""
        return ""

    def gets_root(self, user: str, port: int = 22) -> bool:
        return self.try_ssh("id -un", user, port) == "root"

    # -- parts --------------------------------------------------------------------------------------------------------

    def _file(self, name: str) -> str:
        return str(self.folder / name)

    def _seed(self) -> bytes:
        """What the machine is told at its boot: who and where it is, whom to trust, and whose key lets root in."""
        prefix = settings.SUBNET.partition("/")[2]
        network = (
            f"[Match]\nMACAddress={mac_of(self.address)}\n\n[Network]\nAddress={self.address}/{prefix}\n"
            f"Gateway={bridge_address()}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        )
        hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {self.name}\n"
        hosts += f"{droplet.address_of(settings.SERVICES)} {' '.join(settings.SERVICES_DOMAINS)}\n"
        # Its own domains, as a public name server would tell it.
        hosts += f"{self.address} {' '.join(self.domains)}\n" if self.domains else ""
        files = {
            **droplet.first_boot_files(),
            "etc/hostname": (f"{self.name}\n".encode(), 0o644),
            "etc/hosts": (hosts.encode(), 0o644),
            "etc/resolv.conf": (Path("/etc/resolv.conf").read_bytes(), 0o644),
            "etc/systemd/network/10-lab.network": (network.encode(), 0o644),
        }
        return archive(files)

    def _plug_in(self, tap: str) -> None:
        unplug(tap)
        for words in (("tuntap", "add", "dev", tap, "mode", "tap"), ("link", "set", tap, "master", bridge(), "up")):
            subprocess.run(privileged(["ip", *words]), check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _lead_domains_here(self) -> None:
        """Docker's name server knows containers only: for the ACME authority, the domains are in its list of hosts."""
        if self.domains:
            _edit_services_hosts(self.name, f"{self.address} {' '.join(self.domains)}")


@functools.cache
def accelerator(kernel: Path) -> tuple[str, ...]:
    """KVM where a kernel really runs with it, else software.

    A controller that is itself a virtual machine may have a /dev/kvm that answers, and in which no kernel gets
    anywhere. So one is started without a disk: it panics, restarts, and that ends the attempt.
    """
    command = [PROGRAM, *MACHINE, *KVM, "-m", "256", "-no-reboot", "-kernel", str(kernel), "-append", "panic=-1"]
    works = False
    if Path("/dev/kvm").exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            attempt = subprocess.run(privileged(command), stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                     timeout=PROBE_TIMEOUT)  # fmt: skip
            works = attempt.returncode == 0
    say(
        "machines are accelerated by KVM"
        if works
        else "no kernel starts with KVM here: machines are emulated in software"
    )
    return KVM if works else SOFTWARE


def archive(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Root's files, as a tar archive: path without the leading slash -> content and mode."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def tap_of(address: str) -> str:
    """The kernel takes fifteen characters for an interface."""
    return f"shipshape-{address.rpartition('.')[2]}"


def mac_of(address: str) -> str:
    """One of the range that everybody may hand out, the same for an address each time."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in zlib.crc32(address.encode()).to_bytes(4, "big")[1:])


def bridge() -> str:
    network = inspect("network", settings.NETWORK)
    if network is None:
        raise LabError(f"there is no network {settings.NETWORK}: run `python -m tests.lab services`")
    return str(network.get("Options", {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}")


def bridge_address() -> str:
    """The controller's address in the lab's network, which is the gateway of all in it."""
    command = ["ip", "-json", "-4", "address", "show", "dev", bridge()]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout)
    return str(shown[0]["addr_info"][0]["local"])


def unplug(tap: str) -> None:
    command = privileged(["ip", "link", "delete", tap])
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)


def kill(folder: Path) -> None:
    """End a machine's process at once, if it is that and still there."""
    note = folder / "pid"
    if not note.exists():
        return
    process = Path("/proc", subprocess.run(privileged(["cat", str(note)]), check=True, capture_output=True,
                                           text=True, stdin=subprocess.DEVNULL).stdout.strip())  # fmt: skip
    words = process.joinpath("cmdline").read_bytes().split(b"\0") if process.exists() else []
    if folder.name.encode() in words and PROGRAM.encode() in words[0]:
        subprocess.run(privileged(["kill", f"-{signal.SIGKILL.value}", process.name]), check=False)
        deadline = time.monotonic() + 30
        while process.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    subprocess.run(privileged(["rm", "-f", str(note)]), check=True)


def remove(name: str) -> None:
    """Power off, and nothing is left of the machine: process, tap, disk, and the names that led to it."""
    folder = MACHINES / name
    if not folder.exists():
        return
    kill(folder)
    seed = folder / "seed.tar"
    if seed.exists():
        unplug(tap_of(_address_in(seed)))
    with contextlib.suppress(LabError):
        _edit_services_hosts(name, "")
    shutil.rmtree(folder)


def remove_all() -> None:
    for folder in sorted(MACHINES.glob("*")):
        remove(folder.name)


def _address_in(seed: Path) -> str:
    with tarfile.open(seed) as tar:
        network = tar.extractfile("etc/systemd/network/10-lab.network")
        assert network
        return next(
            line.partition("=")[2].partition("/")[0]
            for line in network.read().decode().splitlines()
            if line.startswith("Address=")
        )


def _edit_services_hosts(name: str, line: str) -> None:
    """Docker mounts that file, so it cannot be replaced, only rewritten."""
    script = 'grep -v " # $1\\$" /etc/hosts >/run/hosts.new; [ -z "$2" ] || echo "$2 # $1" >>/run/hosts.new; '
    script += "cat /run/hosts.new >/etc/hosts"
    with exclusive("services-hosts"):
        docker("exec", settings.SERVICES, "sh", "-euc", script, "sh", name, line)


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    """A bare machine that is gone afterwards, however that comes; KEEP leaves it, and starts from it next time."""
    keep = bool(os.environ.get(KEEP))
    try:
        if keep and (machine.folder / "pid").exists():
            say(f"{machine.name}: goes on from the last time")
        else:
            machine.start()
        yield machine
    finally:
        if keep:
            say(f"{machine.name}: goes on at {machine.address}; `make down` removes it")
        else:
            remove(machine.name)
