"""One declaration of ports: what a container publishes is as closed as everything else that nobody has declared.

One droplet with everything but a deployed app. A stranger is a second machine on its network; the controller is the
office, whose address the inventory lists.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import droplet, inventory, settings
from tests.lab.engine import docker
from tests.site.system import BIN, PROJECT, Run, changes, environment

NAME, ADDRESS, DOMAIN = "shipshape-ports-one", "10.77.0.81", "ports-one.test"
STRANGER, STRANGERS_ADDRESS = "shipshape-ports-stranger", "10.77.0.82"
IMAGE = os.environ.get("SHIPSHAPE_IMAGE", settings.DEFAULT_RELEASE)
#: Published by a container on every address of the droplet.
PORT = 8080
CONTAINER = """
tar -C "$(mktemp -d)" -c --transform 's,.*/,bin/,' --absolute-names /bin/busybox | docker import - box >/dev/null
docker run --detach --restart always --name web --publish 0.0.0.0:8080:80 \\
  box /bin/busybox httpd -f -p 80 -h / >/dev/null
"""


#: What the kernel holds and no file shows.
IN_FORCE = r"""
for one in iptables-save ip6tables-save; do $one | grep -v '^#' | sed 's/\[[0-9:]*\]//'; done
{ sysctl -a 2>/dev/null || true; } | grep -E '^net.ipv4.(conf|tcp_sync)'; systemctl list-units --failed
"""

WITHOUT_DOCKERS_RULES = (
    "iptables -S FORWARD | grep -i docker | sed s/^-A/-D/ | while read -r rule; do iptables $rule; done"
)


class Operator:
    """Somebody with an inventory for the droplet, and its console to look at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        everything = inventory.one_droplet("ports", ADDRESS, DOMAIN)
        everything["all"]["vars"].update(variables)
        hosts = inventory.write(self.folder, everything)
        result = subprocess.run(
            [str(BIN / "ansible-playbook"), playbook, "-i", str(hosts), *arguments],
            cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
        )  # fmt: skip
        return Run(result.returncode, result.stdout)

    def declare(self, **variables: Any) -> None:
        run = self.play("site.yml", "--tags", "hardening,docker", **variables)
        assert run.code == 0, run.tail

    def console(self, script: str) -> str:
        return docker("exec", NAME, "bash", "-euo", "pipefail", "-c", script)


@pytest.fixture(scope="module")
def container(operator: Operator) -> None:
    operator.console("apt-get -qq install busybox-static >/dev/null 2>&1")
    operator.console(CONTAINER)


def reaches(port: int, machine: str = "") -> bool:
    """Whether a connection from the controller or from another machine comes about."""
    command = ["bash", "-c", f"timeout 3 bash -c '</dev/tcp/{ADDRESS}/{port}' 2>/dev/null"]
    prefix = ["docker", "exec", machine] if machine else []
    return subprocess.run([*prefix, *command], check=False).returncode == 0


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    for name, address, aliases in ((NAME, ADDRESS, [DOMAIN]), (STRANGER, STRANGERS_ADDRESS, [])):
        droplet.remove(name)
        droplet.start(name, IMAGE, address, aliases)
    someone = Operator(tmp_path_factory.mktemp("ports"))
    run = someone.play("site.yml", "--skip-tags", "app,backup")
    assert run.code == 0, run.tail
    yield someone
    for name in (NAME, STRANGER):
        droplet.remove(name)


def kept() -> list[str]:
    """Every file of the droplet with its hash, but those that two daemons write to by themselves."""
    return [line for line in changes(NAME) if not line.startswith(("/var/lib/fail2ban/", "/var/lib/postgresql/"))]


def test_verify_passes_on_a_droplet_after_its_first_run_and_changes_nothing(operator: Operator) -> None:
    before = kept(), operator.console(IN_FORCE)
    operator.console("touch /run/before-verify")
    run = operator.play("playbooks/verify.yml", "--verbose")
    assert run.code == 0, run.tail
    assert "In force is what was declared" in run.output and "open: 22/tcp, 80/tcp, 443/tcp" in run.output
    assert (kept(), operator.console(IN_FORCE)) == before
    places = "/etc /usr /srv /root /var/lib/shipshape /home/deploy/.ssh"
    assert operator.console(f"find {places} -newer /run/before-verify") == ""


def test_verify_names_everything_that_is_not_as_declared(operator: Operator) -> None:
    site = "/etc/shipshape/tls/ports-app"
    operator.console(f"""
        mv {site} /root/tls; mkdir {site}
        openssl req -newkey rsa:2048 -nodes -subj /CN={DOMAIN} -keyout /root/key.pem -out /root/request.pem 2>/dev/null
        openssl x509 -req -in /root/request.pem -signkey /root/key.pem -days -1 -out /root/other.pem 2>/dev/null
        ln -s /root/other.pem {site}/fullchain.pem
        echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/00-a.conf
        echo 'games ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/99-foreign
        sysctl -qw net.ipv4.tcp_syncookies=0
        usermod --append --groups docker nobody
        systemd-run --quiet --unit=left-open python3 -m http.server 8000
        systemd-run --quiet --unit=broken false || true
        ufw allow 8000/tcp >/dev/null
        sed -i '1i host all all 10.77.0.0/24 trust' /etc/postgresql/*/main/pg_hba.conf
        runuser -u postgres -- psql -Xqo /dev/null -c "ALTER SYSTEM SET work_mem = '1MB'" \
          -c 'ALTER ROLE ports_app BYPASSRLS' -c 'SELECT pg_reload_conf()'
    """)
    try:
        run = operator.play("playbooks/verify.yml")
        assert run.code != 0
        for words in (
            "sshd: found `passwordauthentication yes`",
            "sudo: found games: (ALL) NOPASSWD: ALL; declared: only `admins` may become root",
            "Look at /etc/sudoers.d/99-foreign",
            "groups: found nobody in group docker",
            "firewall (IPv4): found 8000/tcp open for everybody",
            "firewall (IPv6): found 8000/tcp open for everybody",
            "listening sockets: found python3 on 0.0.0.0:8000/tcp",
            "kernel: found net.ipv4.tcp_syncookies = 0; declared: 1",
            f"certificate of {DOMAIN}: found {site}/fullchain.pem, valid from",
            f"certificate of {DOMAIN}: found another one served",
            "units: found broken.service has failed",
            "PostgreSQL: found work_mem = 1MB, from /var/lib/postgresql/",
            "PostgreSQL: found line 1 of pg_hba.conf lets all in by trust",
            "PostgreSQL: found line 1 of pg_hba.conf lets 10.77.0.0 in without TLS",
            "PostgreSQL: found ports_app with bypassrls",
            f"probe of {ADDRESS}: found 8000/tcp open from here",
        ):
            assert words in run.output, f"{words}\n{run.tail}"
    finally:
        operator.console(f"""
            rm -f /etc/ssh/sshd_config.d/00-a.conf /etc/sudoers.d/99-foreign; rm -r {site}; mv /root/tls {site}
            sysctl -qw net.ipv4.tcp_syncookies=1; gpasswd --delete nobody docker >/dev/null
            systemctl stop left-open; systemctl reset-failed; ufw delete allow 8000/tcp >/dev/null
            sed -i 1d /etc/postgresql/*/main/pg_hba.conf
            runuser -u postgres -- psql -Xqo /dev/null -c 'ALTER SYSTEM RESET work_mem' \
              -c 'ALTER ROLE ports_app NOBYPASSRLS' -c 'SELECT pg_reload_conf()'
        """)
    run = operator.play("playbooks/verify.yml")
    assert run.code == 0, run.tail


def test_verify_names_a_stopped_ufw_once_for_each_protocol(operator: Operator) -> None:
    operator.console("ufw disable >/dev/null")
    try:
        run = operator.play("playbooks/verify.yml")
    finally:
        operator.console("ufw --force enable >/dev/null")
    assert run.code != 0 and "2 findings" in run.output
    for version in (4, 6):
        assert f"firewall (IPv{version}): found ufw is not active" in run.output


def test_verify_names_a_port_that_a_container_publishes(operator: Operator, container: None) -> None:
    operator.console("iptables -I DOCKER-USER -j ACCEPT")
    try:
        run = operator.play("playbooks/verify.yml")
    finally:
        operator.console("iptables -D DOCKER-USER -j ACCEPT")
    assert run.code != 0
    assert "ports of containers (IPv4): found DOCKER-USER begins with `-j ACCEPT`" in run.output
    assert f"probe of {ADDRESS}: found 8080/tcp open from here; declared: nobody declares that port" in run.output


def test_a_port_that_a_container_publishes_is_closed_unless_it_is_declared(operator: Operator, container: None) -> None:
    # The kernel forwards it: no process listens.
    assert f"--dport {PORT} -j DNAT" in operator.console("iptables -t nat -S DOCKER")
    assert operator.console("timeout 3 bash -c '</dev/tcp/172.17.0.2/80' && echo up") == "up"
    assert not reaches(PORT) and not reaches(PORT, STRANGER)
    # It is our chain that closes it: without the jump Docker lets everybody in.
    operator.console("iptables -D DOCKER-USER -j SHIPSHAPE-DOCKER")
    assert reaches(PORT) and reaches(PORT, STRANGER)
    operator.console("systemctl reload shipshape-docker-firewall")
    assert not reaches(PORT)


@pytest.mark.parametrize(
    "flush",
    [
        "iptables -D DOCKER-USER -j SHIPSHAPE-DOCKER",
        "iptables -F DOCKER-USER; iptables -F SHIPSHAPE-DOCKER",
        "ip6tables -F DOCKER-USER; ip6tables -F SHIPSHAPE-DOCKER",
        "ip6tables -t mangle -F",
    ],
)
def test_the_next_run_puts_back_what_somebody_has_flushed(operator: Operator, container: None, flush: str) -> None:
    operator.console(flush)
    foretold = operator.play("site.yml", "--tags", "docker", "--check", "--diff")
    assert "reload shipshape-docker-firewall.service" in foretold.output, foretold.tail
    run = operator.play("site.yml", "--tags", "docker")
    assert run.code == 0 and run.count("changed") == 1, run.tail
    assert not reaches(PORT) and not reaches(PORT, STRANGER)
    again = operator.play("site.yml", "--tags", "docker")
    assert (again.code, again.count("changed")) == (0, 0), again.tail


def test_a_neighbour_cannot_send_to_a_containers_own_address(operator: Operator) -> None:
    docker("exec", STRANGER, "ip", "route", "replace", "172.17.0.0/16", "via", ADDRESS)
    probe = ["docker", "exec", STRANGER, "bash", "-c", "timeout 3 bash -c '</dev/tcp/172.17.0.2/80' 2>/dev/null"]
    try:
        assert subprocess.run(probe, check=False).returncode != 0
    finally:
        docker("exec", STRANGER, "ip", "route", "delete", "172.17.0.0/16")


def test_containers_reach_the_outside_and_those_of_their_own_network(operator: Operator) -> None:
    operator.console(
        f"docker run --rm box /bin/busybox timeout 5 /bin/busybox nc {STRANGERS_ADDRESS} 22 </dev/null;"
        "docker network create shop >/dev/null; docker network connect shop web;"
        "docker run --rm --network shop box /bin/busybox timeout 5 /bin/busybox nc web 80 </dev/null"
    )
    operator.console("docker network disconnect shop web; docker network rm shop")


def test_a_declared_port_is_open_for_its_sources_alone(operator: Operator) -> None:
    source = {"name": "shop", "port": PORT, "sources": [f"{STRANGERS_ADDRESS}/32"]}
    operator.declare(hardening_firewall_rules=[source])
    assert reaches(PORT, STRANGER) and not reaches(PORT)
    operator.declare(hardening_firewall_rules=[{"name": "shop", "port": PORT}])
    assert reaches(PORT, STRANGER) and reaches(PORT)
    operator.declare()
    assert not reaches(PORT, STRANGER) and not reaches(PORT)


def test_the_rules_outlive_what_happens_to_firewall_and_engine(operator: Operator) -> None:
    restarts = "systemctl restart docker", "systemctl restart ufw"
    # Docker then finds the container running, puts its rules anew, and leaves DOCKER-USER where it is.
    flushed = f"systemctl stop docker.socket docker; {WITHOUT_DOCKERS_RULES}; systemctl start docker.socket docker"
    for event in (*restarts, "ufw reload", "ufw disable && ufw --force enable", flushed):
        operator.console(f"{event} >/dev/null")
        assert not reaches(PORT), event
        assert "DOCKER-USER" in "".join(operator.console("iptables -S FORWARD").splitlines()[1:3]), event
        assert reaches(443), event


def test_docker_and_fail2ban_keep_their_chains_through_a_run_and_a_reload(operator: Operator) -> None:
    operator.console("fail2ban-client set sshd banip 203.0.113.9")
    foreign = "iptables-save | grep -E 'DOCKER-ISOLATION|^-A DOCKER |f2b-' | grep -v '^:' | sort"
    before = operator.console(foreign)
    assert "f2b-sshd -s 203.0.113.9" in before and "DOCKER-ISOLATION" in before and "--dport 8080 -j DNAT" in before
    operator.declare(hardening_firewall_rules=[{"name": "extra", "port": 9999}])
    assert operator.console(foreign) == before
    operator.console("ufw reload >/dev/null")
    assert operator.console(foreign) == before
    operator.declare()


def test_over_ipv6_what_is_forwarded_to_a_bridge_is_dropped_unless_declared(operator: Operator) -> None:
    """With the kernel's own forwarding: a namespace is the outside, another one the container."""
    operator.console("""
        # Docker turns IPv6 off in namespaces to come when it has none itself.
        sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
        ip netns add outside; ip netns add inside
        for space in outside inside; do
          ip netns exec $space sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
        done
        ip link add out type veth peer name e netns outside; ip link add br-inside type bridge
        ip link add in type veth peer name e netns inside; ip link set in master br-inside
        ip -6 address add fd77:1::1/64 dev out nodad; ip -6 address add fd77:2::1/64 dev br-inside nodad
        ip -n outside -6 address add fd77:1::2/64 dev e nodad; ip -n inside -6 address add fd77:2::2/64 dev e nodad
        for link in out in br-inside; do ip link set $link up; done
        for space in outside inside; do ip -n $space link set e up; ip -n $space link set lo up; done
        ip -n outside -6 route add default via fd77:1::1; ip -n inside -6 route add default via fd77:2::1
        sysctl -qw net.ipv6.conf.all.forwarding=1
        # As Docker does with its option ip6tables.
        ip6tables -t nat -A PREROUTING -i out -p tcp --dport 8080 -j DNAT --to-destination '[fd77:2::2]:80'
        ip6tables -I FORWARD 2 -o br-inside -p tcp --dport 80 -j ACCEPT
        ip6tables -I FORWARD 3 -m conntrack --ctstate ESTABLISHED -j ACCEPT
        ip netns exec inside busybox httpd -p 80 -h /
        sleep 1
    """)
    published = (
        "ip netns exec outside timeout 3 bash -c '</dev/tcp/fd77:1::1/8080' 2>/dev/null && echo open || echo closed"
    )
    direct = "ip netns exec outside timeout 3 bash -c '</dev/tcp/fd77:2::2/80' 2>/dev/null && echo open || echo closed"
    try:
        assert (operator.console(published), operator.console(direct)) == ("closed", "closed")
        operator.declare(hardening_firewall_rules=[{"name": "shop", "port": PORT, "sources": ["fd77:1::/64"]}])
        assert (operator.console(published), operator.console(direct)) == ("open", "closed")
        operator.declare(hardening_firewall_rules=[{"name": "shop", "port": PORT, "sources": ["fd77:9::/64"]}])
        assert operator.console(published) == "closed"
    finally:
        operator.console("""
            ip6tables -t nat -F PREROUTING; ip6tables -D FORWARD -o br-inside -p tcp --dport 80 -j ACCEPT
            ip6tables -D FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
            for space in inside outside; do ip netns pids $space | xargs -r kill; ip netns delete $space; done
            ip link delete br-inside; sysctl -qw net.ipv6.conf.all.forwarding=0
        """)
        operator.declare()


def test_over_ipv6_what_docker_itself_publishes_is_closed_unless_it_is_declared(
    operator: Operator, container: None
) -> None:
    """With Docker's option ip6tables and a network of its own; a namespace is the outside."""
    speaks = {"docker_daemon_settings": {"experimental": True, "ip6tables": True}}
    skips = {"hardening_skip": ["kernel_no_ipv6_forwarding"]}
    operator.declare(**speaks, **skips)
    operator.console("""
        sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.all.forwarding=1
        ip netns add outside
        ip netns exec outside sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
        ip link add out type veth peer name e netns outside
        ip -6 address add fd77:1::1/64 dev out nodad; ip -n outside -6 address add fd77:1::2/64 dev e nodad
        ip link set out up; ip -n outside link set e up; ip -n outside -6 route add default via fd77:1::1
        docker network create --ipv6 --subnet fd77:5::/64 six >/dev/null
        docker run --detach --name six --network six --publish '[::]:8080:80' box \
          /bin/busybox httpd -f -p 80 -h / >/dev/null
        sleep 1
    """)
    address = "docker inspect --format '{{(index .NetworkSettings.Networks \"six\").GlobalIPv6Address}}' six"
    ask = "ip netns exec outside timeout 3 bash -c '</dev/tcp/{}/{}' 2>/dev/null && echo open || echo closed"
    published, direct = ask.format("fd77:1::1", PORT), ask.format(operator.console(address), 80)
    try:
        assert "--dport 8080 -j DNAT" in operator.console("ip6tables -t nat -S DOCKER")
        assert (operator.console(published), operator.console(direct)) == ("closed", "closed")
        # Docker has put this network's rules before DOCKER-USER. It is our other jump, in a table that it does not use,
        # that closes both: without it everybody is let in.
        operator.console("ip6tables -t mangle -D FORWARD -j SHIPSHAPE-DOCKER")
        assert operator.console(published) == "open"
        verified = operator.play("playbooks/verify.yml", **speaks, **skips)
        assert "ports of containers (IPv6): found FORWARD begins with `nothing`" in verified.output, verified.tail
        operator.declare(**speaks, **skips)
        assert operator.console(published) == "closed"
        rule = {"name": "shop", "port": PORT, "sources": ["fd77:1::/64"]}
        operator.declare(**speaks, **skips, hardening_firewall_rules=[rule])
        assert (operator.console(published), operator.console(direct)) == ("open", "closed")
    finally:
        operator.console("""
            docker rm --force six >/dev/null; docker network rm six >/dev/null
            ip netns delete outside; sysctl -qw net.ipv6.conf.all.forwarding=0
        """)
        operator.declare()


def test_after_a_restart_no_container_is_reachable_before_the_rules_are_there(operator: Operator) -> None:
    droplet.reboot(NAME)
    assert operator.console("docker inspect --format '{{.State.Running}}' web") == "true"
    assert not reaches(PORT) and not reaches(PORT, STRANGER)
    order = "systemctl show --property=ActiveEnterTimestampMonotonic,ExecMainStartTimestampMonotonic --value "
    rules, engine = (
        operator.console(f"{order} {unit}.service").split() for unit in ("shipshape-docker-firewall", "docker")
    )
    assert max(map(int, rules)) < min(int(stamp) for stamp in engine if stamp != "0")
