#!/usr/bin/env bash
# Says which of the settings are in force that the test switches off and on.
set -uo pipefail
echo "idle: $(find /etc/profile.d -name shipshape-timeout.sh | wc -l)"
sshd -T | grep -E '^(kexalgorithms|allowtcpforwarding|loglevel) '
# As the next boot does.
systemctl start shipshape-hidepid.service; systemctl restart systemd-logind.service
# Of root's processes, as this user sees them.
seen() { [ "$(runuser --user "$1" -- ps -U root -o pid= | wc -l)" -gt 1 ] && echo many || echo 0; }
echo "processes of others: $(seen nobody) for nobody, $(seen root) for root"
systemctl restart user@"$(id --user deploy)".service
echo "user manager: $(runuser --user deploy -- env XDG_RUNTIME_DIR="/run/user/$(id --user deploy)" systemctl --user is-system-running)"
echo "assembler: $(stat --format %a /usr/bin/x86_64-linux-gnu-as)"
changed() { dpkg --verify base-files login passwd | grep --only-matching -E '/etc/(issue|issue.net|login.defs)$' | tr '\n' ' '; }
echo "changed of packages: $(changed)"
echo "tmp: $(grep ^What= /etc/systemd/system/tmp.mount)"
echo "links: $(find /etc/systemd/system -xtype l | wc -l)"
echo "failed: $(systemctl list-units --failed --no-legend | wc -l)"
