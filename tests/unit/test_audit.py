"""The auditors' outputs as they were saved, what is made of them, and the judgement. No droplet."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.audit import __main__ as runner
from tests.audit import declared, docker_bench, lynis, openscap, probe, report, ssh_audit, waivers
from tests.audit.model import AuditError, Finding, Judgement, Result, Waiver, judge
from tests.lab import inventory, settings
from tests.lab.image import RELEASES

OUTPUTS = Path(__file__).with_name("audit_outputs")
AUDITORS = ("openscap", "lynis")


def saved(name: str) -> str:
    return (OUTPUTS / name).read_text(encoding="utf-8")


def ids(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.id for finding in findings]


# ---- OpenSCAP


def test_openscap_counts_what_applies_and_names_what_failed_by_its_number() -> None:
    result = openscap.parse(saved("openscap.xml").encode())
    # One rule does not apply and one is left to a human: neither counts.
    assert (result.figure, result.within) == ("2 pass, 3 fail: 40.0 %", False)
    assert [(one.group, one.id) for one in result.failures] == [
        ("CIS 1.1.2.1", "partition_for_tmp"),
        ("CIS 2.2.9", "package_nginx_removed"),
        ("CIS 5.2.4", "sshd_limit_user_access"),
    ]
    assert result.failures[2].title == "Limit Users' SSH Access"


@pytest.mark.parametrize("outcome", ["error", "unknown"])
def test_a_rule_that_openscap_could_not_evaluate_has_failed(outcome: str) -> None:
    text = saved("openscap.xml").replace("<result>pass</result>", f"<result>{outcome}</result>", 1)
    result = openscap.parse(text.encode())
    assert result.figure == "1 pass, 4 fail: 20.0 %"
    assert sum(one.detail == f"the scanner says: {outcome}" for one in result.failures) == 1


def test_openscap_is_content_from_its_share_on() -> None:
    text = saved("openscap.xml").replace("<result>fail</result>", "<result>pass</result>")
    assert openscap.parse(text.encode()).within


def test_a_guide_that_finds_nothing_applicable_is_no_pass() -> None:
    text = saved("openscap.xml")
    for outcome in ("pass", "fail"):
        text = text.replace(f"<result>{outcome}</result>", "<result>notapplicable</result>")
    with pytest.raises(AuditError, match="no rule that applies"):
        openscap.parse(text.encode())


PLATFORM = '<xccdf-1.2:platform idref="cpe:/o:canonical:ubuntu_linux:22.04::~~lts~~~"/>\n'


def test_only_the_platform_of_the_whole_guide_is_taken_out() -> None:
    rest = '<xccdf-1.2:platform idref="#package_ufw"/>\n'
    assert openscap.without_platform(f"<a>\n{PLATFORM}{rest}</a>") == f"<a>\n{rest}</a>"


@pytest.mark.parametrize("times", [0, 2])
def test_a_guide_of_another_shape_is_refused(times: int) -> None:
    with pytest.raises(AuditError, match=f"{times} platform lines instead of one"):
        openscap.without_platform(PLATFORM * times)


# ---- Lynis


def test_lynis_gives_its_index_and_where_the_points_were_lost() -> None:
    result = lynis.parse(saved("lynis-report.dat"), saved("lynis.log"))
    assert (result.title, result.figure, result.within) == ("Lynis 3.0.8", "hardening index 67", False)
    assert not result.failures
    lost = [(one.group, one.id) for one in result.advice if one.group != "suggestion"]
    assert lost[:2] == [("- 3 points", "FILE-6310"), ("- 2 points", "PKGS-7370")] and len(lost) == 4
    assert Finding(
        "SSH-7408", "Consider hardening SSH configuration", "suggestion", "MaxSessions (set 10 to 2)"
    ) in result.advice  # fmt: skip


def test_a_warning_of_lynis_needs_a_waiver_even_where_the_index_is_good() -> None:
    text = saved("lynis-report.dat").replace("index=67", "index=90")
    text += "warning[]=FIRE-4512|iptables module(s) loaded, but no rules active|-|-|\n"
    result = lynis.parse(text, "")
    assert result.within
    assert result.failures == (Finding("FIRE-4512", "iptables module(s) loaded, but no rules active", "warning"),)
    assert not judge([result], [], "debian-12").ok


def test_lynis_that_was_cut_off_has_no_index() -> None:
    with pytest.raises(AuditError, match="did not come to an index"):
        lynis.parse(saved("lynis-report.dat").replace("hardening_index", "x"), "")


# ---- ssh-audit


def test_ssh_audit_counts_algorithms_once_for_failures_and_once_for_warnings() -> None:
    result = ssh_audit.parse(json.loads(saved("ssh-audit.json")))
    assert (result.title, result.figure, result.within) == (
        "ssh-audit of OpenSSH_9.2p1",
        "3 failures, 4 warnings",
        False,
    )
    assert ids(result.failures) == [
        "fail:ecdh-sha2-nistp256",
        "fail:ecdsa-sha2-nistp256",
        "fail:hmac-sha1",
        "warn:curve25519-sha256",
        "warn:ecdh-sha2-nistp256",
        "warn:ecdsa-sha2-nistp256",
        "warn:hmac-sha1",
    ]


def test_a_server_of_good_algorithms_satisfies_ssh_audit() -> None:
    given = json.loads(saved("ssh-audit.json"))
    for kind in ssh_audit.KINDS:
        given[kind] = [row for row in given[kind] if not {"fail", "warn"} & set(row["notes"])]
    assert given["kex"] and given["mac"], "the saved output has good algorithms, too"
    assert ssh_audit.parse(given).within


def test_a_warning_alone_is_too_much_for_ssh_audit() -> None:
    given = json.loads(saved("ssh-audit.json"))
    for kind in ssh_audit.KINDS:
        given[kind] = [row for row in given[kind] if "fail" not in row["notes"]]
    result = ssh_audit.parse(given)
    assert (result.figure, result.within) == ("0 failures, 1 warnings", False)


def test_no_waiver_lowers_what_ssh_audit_is_wanted_to_say() -> None:
    result = ssh_audit.parse(json.loads(saved("ssh-audit.json")))
    excuses = [Waiver(ssh_audit.NAME, finding.id, "an old client") for finding in result.failures]
    assert not judge([result], excuses, "debian-12").ok


# ---- Docker


@pytest.fixture
def docker() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(saved("docker.json"))
    return facts


def test_docker_as_packaged_has_the_known_warnings(docker: dict[str, Any]) -> None:
    result = docker_bench.parse(docker)
    assert (result.figure, result.within) == ("26 pass, 21 warnings, 34 not applicable", False)
    daemon = [one.id for one in result.failures if not one.id.startswith("1.1.")]
    assert daemon == ["2.2", "2.9", "2.12", "2.13", "2.14", "2.16"]


def test_a_hardened_daemon_satisfies_every_check_but_the_waived_two(docker: dict[str, Any]) -> None:
    paths = [path for _, path in docker_bench.audited(docker) if path]
    docker["audit"] = {"from": "the kernel", "text": "\n".join(f"-w {path} -p rwxa -k docker" for path in paths)}
    docker["daemon"] |= {"icc": False, "no-new-privileges": True, "userland-proxy": False}
    docker["info"]["LoggingDriver"] = "journald"
    result = docker_bench.parse(docker)
    assert (ids(result.failures), result.within) == (["2.9", "2.12"], True)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"daemon": {"insecure-registries": ["registry.test"]}}, "2.5"),
        ({"arguments": ["-H", "fd://", "-H", "tcp://0.0.0.0:2375"]}, "2.7"),
        ({"arguments": ["--host=tcp://0.0.0.0:2375"]}, "2.7"),
        ({"arguments": ["--log-level", "debug"]}, "2.3"),
        ({"daemon": {"iptables": False}}, "2.4"),
        ({"arguments": ["--cgroup-parent=/foo"]}, "2.10"),
        ({"group": "deploy"}, "1.1.2"),
        ({"experimental": "true"}, "2.18"),
    ],
)
def test_each_weakness_of_the_daemon_is_seen(docker: dict[str, Any], change: dict[str, Any], number: str) -> None:
    assert number not in ids(docker_bench.parse(docker).failures)
    assert number in ids(docker_bench.parse({**docker, **change}).failures)


def test_wrong_owner_and_mode_are_seen_and_named(docker: dict[str, Any]) -> None:
    docker["paths"]["/etc/docker/daemon.json"] |= {"owner": "deploy:deploy", "mode": 0o664}
    found = {one.id: one.detail for one in docker_bench.parse(docker).failures}
    assert found["3.17"] == "/etc/docker/daemon.json: deploy:deploy"
    assert found["3.18"] == "/etc/docker/daemon.json: 664"


def test_audit_rules_are_read_in_all_their_spellings() -> None:
    rules = """
    ## -w /etc/default/docker -k docker
    -w /etc/docker -p wa -k docker
    -a always,exit -F path=/usr/bin/runc -F perm=x -k docker
    -a always,exit -F dir=/var/lib/docker/ -F perm=wa
    -w /lib/systemd/system/docker.service -k docker
    """
    watched = docker_bench.watched(rules)
    assert watched == {"/etc/docker", "/usr/bin/runc", "/var/lib/docker", "/usr/lib/systemd/system/docker.service"}


def test_a_rule_for_the_folder_is_none_for_the_file() -> None:
    assert docker_bench.unwatched({"from": "x", "text": "-w /etc/docker -k docker"}, "/etc/docker/daemon.json")


def test_a_container_with_the_powers_of_its_host_fails_the_runtime_checks(docker: dict[str, Any]) -> None:
    docker["containers"] = [json.loads(saved("container.json"))]
    found = {one.id: one.detail for one in docker_bench.parse(docker).failures}
    assert found["5.22"] == "shipshape-services (unconfined)"
    assert "CAP_SYS_ADMIN" in found["5.4"]
    assert {number for number in found if number.startswith("5.")} == {
        *("5.2", "5.4", "5.11", "5.12", "5.13", "5.22", "5.26", "5.27", "5.29")
    }


def test_a_container_that_is_locked_up_passes_the_runtime_checks(docker: dict[str, Any]) -> None:
    container = json.loads(saved("container.json"))
    container |= {"AppArmorProfile": "docker-default", "State": {"Health": {"Status": "healthy"}}}
    container["HostConfig"] |= {
        **{"SecurityOpt": ["no-new-privileges"], "CapAdd": None, "Memory": 1 << 28, "CpuShares": 512},
        **{"ReadonlyRootfs": True, "PidsLimit": 100, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}},
    }
    assert dict(docker_bench.faults(container)) == {}
    weaker = copy.deepcopy(container)
    weaker["HostConfig"]["RestartPolicy"] = {"Name": "unless-stopped", "MaximumRetryCount": 0}
    weaker["NetworkSettings"]["Ports"] = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}
    weaker["Mounts"] = [{"Source": "/run/docker.sock"}, {"Source": "/etc"}]
    assert sorted(dict(docker_bench.faults(weaker))) == ["5.14", "5.15", "5.32", "5.6", "5.8"]


# ---- the probe


def test_only_what_answered_is_open() -> None:
    assert probe.parse(saved("nmap-tcp.xml").encode()) == {("tcp", 22), ("tcp", 47111)}
    assert probe.parse(saved("nmap-udp.xml").encode()) == {("udp", 161)}
    assert probe.scanned(saved("nmap-tcp.xml").encode()) == probe.ALL_TCP


@pytest.mark.parametrize("state", ["open|filtered", "filtered", "closed"])
def test_silence_and_refusal_are_not_open(state: str) -> None:
    text = saved("nmap-udp.xml").replace('state="open" reason="udp-response"', f'state="{state}" reason="no-response"')
    assert probe.parse(text.encode()) == set()


def test_an_undeclared_port_fails_and_a_silent_one_is_told() -> None:
    result = probe.compare({("tcp", 22), ("tcp", 47111), ("udp", 161)}, {("tcp", 22), ("tcp", 443)})
    assert (result.within, ids(result.failures), ids(result.advice)) == (False, ["47111/tcp", "161/udp"], ["443/tcp"])
    assert probe.compare({("tcp", 22)}, {("tcp", 22), ("tcp", 443)}).within


def test_declared_ports_follow_from_the_apps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.with_suffix(".pub").write_text("ssh-ed25519 AAAA\n", encoding="utf-8")
    monkeypatch.setattr(settings, "SSH_KEY", key)
    planned = inventory.one_droplet("audit", "192.0.2.1", "audit.test")
    assert declared.ports(planned, "audit", ssh_port=2222) == {("tcp", 2222), ("tcp", 80), ("tcp", 443)}


# ---- waivers and judgement


def write(folder: Path, rows: Any) -> Path:
    path = folder / "waivers.yml"
    path.write_text(yaml.safe_dump(rows), encoding="utf-8")
    return path


GOOD = {"auditor": "openscap", "id": "package_nginx_removed", "reason": "The droplet is a web server."}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{**GOOD, "because": "x"}], "waiver 1: unknown key 'because'"),
        ([GOOD, {**GOOD, "auditor": "nessus"}], "waiver 2: auditor 'nessus' is none of lynis, openscap"),
        ([{**GOOD, "reason": "accepted"}], "its reason does not say why"),
        ([{"auditor": "lynis", "id": "X-1"}], "its reason does not say why"),
        ([{**GOOD, "id": ""}], "has no id"),
        ([{**GOOD, "images": ["debian-10"]}], "image 'debian-10' is none of debian-11"),
        ([GOOD, GOOD], "waiver 2: openscap package_nginx_removed is waived twice"),
        (["nginx"], "waiver 1: wanted a dictionary"),
        ({"nginx": "yes"}, "wanted a list of waivers"),
    ],
)
def test_a_careless_waiver_is_refused(tmp_path: Path, rows: Any, words: str) -> None:
    with pytest.raises(AuditError) as caught:
        waivers.read(write(tmp_path, rows), AUDITORS, RELEASES)
    assert words in str(caught.value)


def test_our_own_waivers_are_in_order() -> None:
    assert waivers.read(waivers.FILE, runner.AUDITORS, runner.IMAGES)


FAILURES = (Finding("a", "First"), Finding("b", "Second"))
RESULT = Result("openscap", "OpenSCAP", "95 %", "≥ 95 %", True, FAILURES)


def judged(*excuses: Waiver, image: str = "debian-12", result: Result = RESULT) -> Judgement:
    return judge([result], excuses, image)


def test_all_is_well_only_when_every_failure_is_waived() -> None:
    both = [Waiver("openscap", name, "why") for name in "ab"]
    assert judged(*both).ok
    assert not judged(both[0]).ok
    assert judged(both[0]).verdicts[0].unwaived == (FAILURES[1],)


def test_a_waiver_does_not_make_up_for_a_bad_figure() -> None:
    below = Result("openscap", "OpenSCAP", "94 %", "≥ 95 %", False, FAILURES[:1])
    assert not judged(Waiver("openscap", "a", "why"), result=below).ok


def test_a_waiver_that_covers_nothing_is_stale_and_spoils_the_audit() -> None:
    excuses = [Waiver("openscap", name, "why") for name in "abc"]
    judgement = judged(*excuses)
    assert judgement.stale == (excuses[2],)
    assert judgement.verdicts[0].ok and not judgement.ok


def test_a_waiver_counts_for_its_own_auditor_and_images_alone() -> None:
    foreign = Waiver("lynis", "a", "why")
    narrow = Waiver("openscap", "a", "why", ("debian-11",))
    assert judged(foreign, narrow).verdicts[0].unwaived == FAILURES
    assert not judged(foreign, narrow).stale, "neither was asked about here"
    assert not judged(narrow, image="debian-11").stale


def test_an_auditor_that_broke_down_is_not_content_and_makes_no_waiver_stale() -> None:
    broken = Result("openscap", "openscap", "gave no opinion", "an opinion", within=False, spoke=False)
    judgement = judged(Waiver("openscap", "a", "why"), result=broken)
    assert not judgement.ok and not judgement.stale


# ---- the report


def test_terminal_report_has_the_table_what_is_unwaived_and_what_is_stale() -> None:
    text = report.terminal(judged(Waiver("openscap", "a", "why"), Waiver("openscap", "c", "once true")), "debian-12")
    assert "openscap  95 %    ≥ 95 %  NOT OK" in text.splitlines()
    assert "  b  Second" in text.splitlines() and "  a  First" not in text.splitlines()
    assert "  openscap  c  once true" in text.splitlines()
    assert text.endswith("0 of 1 auditors content; 1 findings not waived, 1 waived, 1 waivers stale: NOT OK")


def test_html_report_shows_the_reasons_and_escapes_what_auditors_say() -> None:
    nasty = Result("openscap", "OpenSCAP", "1", "2", True, (Finding("a", "<script>alert(1)</script>"), FAILURES[1]))
    page = report.html(judged(Waiver("openscap", "b", "a < b"), result=nasty), "debian-12", [("commit", "abc")])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "a &lt; b" in page and "commit: abc" in page
    assert page.startswith("<!doctype html>") and page.count("<table>") == page.count("</table>")
