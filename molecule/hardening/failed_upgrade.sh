#!/usr/bin/env bash
# An unattended upgrade of a package whose new version cannot be installed, and a reboot that is due: prints what the
# webhook heard, and puts everything back.
set -euo pipefail
work=$(mktemp -d)
python3 - "$work/heard" <<'PYTHON' &
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open(sys.argv[1], "ab") as heard:
            heard.write(self.path.encode() + b" " + self.rfile.read(int(self.headers["Content-Length"])) + b"\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
PYTHON
listener=$!
trap 'kill $listener; rm -rf "$work" /etc/apt/sources.list.d/lab.list /etc/apt/apt.conf.d/99lab /run/reboot-required*
  dpkg --purge --force-all lab-probe >/dev/null 2>&1' EXIT

package() {
  mkdir -p "$work/tree/DEBIAN"
  printf 'Package: lab-probe\nVersion: %s\nArchitecture: all\nMaintainer: Lab <lab@example.test>\nDescription: probe\n' "$1" >"$work/tree/DEBIAN/control"
  printf '#!/bin/sh\n%s\n' "$2" >"$work/tree/DEBIAN/postinst"
  chmod 0755 "$work/tree/DEBIAN/postinst"
  dpkg-deb --build "$work/tree" "$work/repo/lab-probe_$1_all.deb" >/dev/null
}
chmod 0755 "$work"; mkdir "$work/repo"
package 1 'exit 0'; dpkg --install "$work/repo/lab-probe_1_all.deb" >/dev/null; rm "$work/repo/"*
package 2 'echo it cannot be configured >&2; exit 1'
cd "$work/repo"
{ dpkg-deb --field lab-probe_2_all.deb; printf 'Filename: ./lab-probe_2_all.deb\nSize: %s\nSHA256: %s\n' \
  "$(stat --format %s lab-probe_2_all.deb)" "$(sha256sum lab-probe_2_all.deb | cut -d ' ' -f 1)"; } >Packages
printf 'Origin: Lab\nSuite: lab\nCodename: lab\nSHA256:\n %s %s Packages\n' \
  "$(sha256sum Packages | cut -d ' ' -f 1)" "$(stat --format %s Packages)" >Release
echo "deb [trusted=yes] file:$work/repo ./" >/etc/apt/sources.list.d/lab.list
# Nothing else is to be upgraded here, and the service is to do its work whenever it is started.
cat >/etc/apt/apt.conf.d/99lab <<'APT'
#clear Unattended-Upgrade::Origins-Pattern;
#clear Unattended-Upgrade::Allowed-Origins;
Unattended-Upgrade::Origins-Pattern { "origin=Lab"; };
APT::Periodic::Unattended-Upgrade "always";
APT
apt-get -qq update -o Dir::Etc::sourcelist=sources.list.d/lab.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0

touch /run/reboot-required
echo lab-kernel >/run/reboot-required.pkgs
systemctl start apt-daily-upgrade.service
echo "service: $(systemctl show --property=Result apt-daily-upgrade.service)"
dpkg --purge --force-all lab-probe >/dev/null 2>&1
rm /run/reboot-required*
systemctl start apt-daily-upgrade.service
echo "second: $(systemctl show --property=Result apt-daily-upgrade.service)"
cat "$work/heard"
echo "times: $(wc -l <"$work/heard")"
