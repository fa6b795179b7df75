"""Strangers who try passwords, look for holes or do not heed a limit are shut out; everybody else goes on.

One hardened droplet with a proxy and Docker, and one from which strangers come, each test's from an address of its own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import droplet, inventory, settings
from tests.site.system import BIN, PROJECT, environment

NAME, ADDRESS = "shipshape-bans", "10.77.0.90"
STRANGERS = "shipshape-strangers"
FIRST, *OTHERS = ("10.77.0.91", "10.77.0.92", "10.77.0.93", "10.77.0.94", "10.77.0.95", "10.77.0.96")
SSH_GUESSER, PASSWORD_GUESSER, PROBER, FLOODER, REPEATER = FIRST, *OTHERS[:4]
BYSTANDER = OTHERS[4]
DOMAIN = "bans.test"

PRIVATE = """\
server {
    listen 8099;
    location / { auth_basic "private"; auth_basic_user_file /etc/nginx/nobody; root /srv; }
}
"""


def on(name: str, script: str) -> str:
    command = ["docker", "exec", name, "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout.strip()


def asks(address: str, url: str, *options: str) -> str:
    """The last status that a client at this address gets; 000 when it is refused."""
    words = [
        "curl",
        "-sk",
        "--interface",
        address,
        "--max-time",
        "5",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}\\n",
    ]
    words += ["--resolve", f"{DOMAIN}:443:{ADDRESS}", *options, url]
    done = subprocess.run(
        ["docker", "exec", STRANGERS, *words], capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout.split()[-1]


def logs_in(address: str, user: str = "nobody-here") -> str:
    words = ["ssh", "-b", address, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=5"]
    done = subprocess.run(
        ["docker", "exec", STRANGERS, *words, f"{user}@{ADDRESS}", "true"], capture_output=True, text=True, check=False
    )
    return done.stderr


def greets(address: str) -> bool:
    """Whether sshd lets a client at this address begin."""
    program = "import socket, sys; print(socket.create_connection((sys.argv[1], 22), 5, (sys.argv[2], 0)).recv(4))"
    return on(STRANGERS, f"python3 -c '{program}' {ADDRESS} {address}") == "b'SSH-'"


def bans(jail: str, address: str) -> tuple[bool, bool]:
    """What fail2ban says, and what the packet filter does."""
    said = on(NAME, f"fail2ban-client get {jail} banned {address}") == "1"
    return said, f"-s {address}/32 -j REJECT" in on(NAME, f"iptables -S f2b-{jail}")


def waits_for_ban(jail: str, address: str) -> None:
    deadline = time.monotonic() + 20
    while bans(jail, address) != (True, True):
        assert time.monotonic() < deadline, on(NAME, f"fail2ban-client status {jail}; tail -n 20 /var/log/fail2ban.log")
        time.sleep(0.5)


def playbook(hosts: Path, *words: str) -> str:
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), *words, "--inventory", str(hosts)], cwd=PROJECT, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    planned = inventory.one_droplet("bans", ADDRESS, DOMAIN)
    planned["all"]["vars"]["nginx_sites"] = [
        {
            "name": "limited", "domains": [f"limited.{DOMAIN}"], "self_signed": True,
            "static": {"root": "/srv/limited"}, "rate_limit": {"per_minute": 1},
        }
    ]  # fmt: skip
    planned["all"]["vars"]["hardening_firewall_rules"] = [{"name": "private", "port": 8099}]
    return inventory.write(tmp_path_factory.mktemp("bans"), planned)


@pytest.fixture(scope="module", autouse=True)
def droplets(hosts: Path) -> Iterator[None]:
    for name, address in ((NAME, ADDRESS), (STRANGERS, FIRST)):
        droplet.remove(name)
        droplet.start(name, settings.DEFAULT_RELEASE, address, [])
    on(STRANGERS, "; ".join(f"ip address add {address}/24 dev eth0" for address in OTHERS))
    # Before there is a proxy, so that its logs are not there either.
    playbook(hosts, "playbooks/hardening.yml")
    assert "nginx-probes" in on(NAME, "fail2ban-client status")
    playbook(hosts, "site.yml", "--tags", "packages,hardening,docker,nginx")
    on(
        NAME,
        f"cat > /etc/nginx/conf.d/private.conf <<'conf'\n{PRIVATE}conf\n: > /etc/nginx/nobody; systemctl reload nginx",
    )
    yield
    for name in (NAME, STRANGERS):
        droplet.remove(name)


@pytest.fixture(autouse=True)
def bystander() -> Iterator[None]:
    """Somebody else goes on."""
    yield
    assert asks(BYSTANDER, f"https://{DOMAIN}/") == "502", "the app is not deployed, but the proxy answers"
    assert greets(BYSTANDER)


def test_who_guesses_ssh_logins_is_refused_by_ssh_and_nobody_else() -> None:
    for _ in range(6):
        logs_in(SSH_GUESSER)
    waits_for_ban("sshd", SSH_GUESSER)
    assert "refused" in logs_in(SSH_GUESSER)


def test_who_guesses_passwords_of_the_proxy_is_refused() -> None:
    url = f"http://{ADDRESS}:8099/"
    assert asks(PASSWORD_GUESSER, url) == "401"
    for _ in range(5):
        asks(PASSWORD_GUESSER, url, "--user", "root:toor")
    waits_for_ban("nginx-http-auth", PASSWORD_GUESSER)
    assert asks(PASSWORD_GUESSER, f"https://{DOMAIN}/") == "000"


def test_who_looks_for_holes_is_refused() -> None:
    for path in (".env", ".git/config", ".aws/credentials", "old/.env", ".env.production"):
        assert asks(PROBER, f"https://{DOMAIN}/{path}") == "404"
    waits_for_ban("nginx-probes", PROBER)
    assert asks(PROBER, f"https://{DOMAIN}/") == "000"


def test_who_does_not_heed_a_limit_is_refused_and_who_meets_it_is_not() -> None:
    limited = ("--resolve", f"limited.{DOMAIN}:443:{ADDRESS}")
    assert asks(BYSTANDER, f"https://limited.{DOMAIN}/[1-30]", *limited) == "429"
    asks(FLOODER, f"https://limited.{DOMAIN}/[1-150]", *limited)
    waits_for_ban("nginx-limit-req", FLOODER)
    assert asks(FLOODER, f"https://{DOMAIN}/") == "000"
    assert bans("nginx-limit-req", BYSTANDER) == (False, False)


def seconds_of_bans(jail: str, address: str) -> list[int]:
    """Of each, the first one first, also when it is over: as fail2ban remembers them."""
    asked = f"SELECT bantime FROM bans WHERE jail = '{jail}' AND ip = '{address}' ORDER BY timeofban"
    program = "import sqlite3, sys; print(*(row[0] for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])))"
    told = on(NAME, f'python3 -c "{program}" /var/lib/fail2ban/fail2ban.sqlite3 "{asked}"')
    return [int(seconds) for seconds in told.split()]


def waits_for_bans(jail: str, address: str, count: int) -> list[int]:
    deadline = time.monotonic() + 20
    while len(lasted := seconds_of_bans(jail, address)) < count:
        assert time.monotonic() < deadline, on(NAME, f"fail2ban-client status {jail}; tail -n 20 /var/log/fail2ban.log")
        time.sleep(0.5)
    return lasted


def test_each_ban_lasts_longer_and_the_fifth_shuts_all_ports_for_a_week() -> None:
    # Not the hours that a stranger would wait; a ban that is lifted by hand is forgotten and would not count.
    on(NAME, "fail2ban-client set nginx-probes bantime 2")
    try:
        for number in range(1, 6):
            for _ in range(5):
                asks(REPEATER, f"https://{DOMAIN}/.env")
            lasted = waits_for_bans("nginx-probes", REPEATER, number)
            if number < 5:
                time.sleep(lasted[-1] + 1)
        assert len(lasted) == 5 and lasted == sorted(set(lasted)), lasted
        waits_for_ban("recidive", REPEATER)
        assert seconds_of_bans("recidive", REPEATER) == [7 * 24 * 3600]
        assert "refused" in logs_in(REPEATER)
    finally:
        on(NAME, "fail2ban-client set nginx-probes bantime 3600")


def test_an_operator_who_is_logged_in_is_never_banned() -> None:
    ssh = [
        "ssh",
        "-i",
        str(settings.SSH_KEY),
        "-o",
        f"UserKnownHostsFile={settings.KNOWN_HOSTS}",
        "-o",
        "BatchMode=yes",
    ]
    with subprocess.Popen([*ssh, f"{inventory.ADMIN}@{ADDRESS}", "sleep 60"]) as session:
        time.sleep(2)
        peers = on(NAME, "ss --no-header --tcp --numeric state established '( sport = :22 )' | awk '{print $4}'")
        operator = peers.split()[0].rsplit(":", 1)[0].strip("[]").removeprefix("::ffff:")
        probe = [
            "curl",
            "-sk",
            "--resolve",
            f"{DOMAIN}:443:{ADDRESS}",
            "-o",
            "/dev/null",
            f"https://{DOMAIN}/.env?[1-12]",
        ]
        subprocess.run(probe, check=True)
        time.sleep(3)
        assert f"[nginx-probes] Ignore {operator} by command" in on(NAME, "cat /var/log/fail2ban.log")
        assert bans("nginx-probes", operator) == (False, False)
        session.terminate()


def test_bans_and_dockers_chains_outlive_a_restart_of_fail2ban() -> None:
    def docker() -> str:
        return on(NAME, "iptables -S | grep -i docker; iptables -t nat -S | grep -i docker")

    before = docker()
    assert "DOCKER-USER" in before
    on(NAME, "fail2ban-client set nginx-probes banip 192.0.2.9; systemctl restart fail2ban")
    waits_for_ban("nginx-probes", "192.0.2.9")
    assert docker() == before


def test_a_second_run_restarts_nothing(hosts: Path) -> None:
    assert " changed=0 " in playbook(hosts, "playbooks/hardening.yml")
