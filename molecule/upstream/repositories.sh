#!/usr/bin/env bash
# Makes /srv/upstream/{pgdg,docker,nginx} of the distribution's packages, with the names, versions and layout that the
# three projects give to theirs, signed by one key, and serves them on 127.0.0.1:8090.
set -euo pipefail
# What is packed here is for everybody to read.
umask 022
release=$1
root=/srv/upstream
export DEBIAN_FRONTEND=noninteractive

apt-get -qq update
apt-get -qq install --no-install-recommends apt-utils gnupg gpg-agent > /dev/null
mkdir -p $root /tmp/packages && cd /tmp/packages && chmod 0777 .

# unpacked PACKAGE...: each lies in a directory of its name then.
unpacked() {
  local package
  for package in "$@"; do
    apt-get -qq download "$package"
    dpkg-deb -R "$package"_*.deb "$package" && rm "$package"_*.deb
  done
}

# packed DIRECTORY REPOSITORY
packed() {
  mkdir -p "$root/$2/pool"
  dpkg-deb --root-owner-group -Zgzip -z1 -b "$1" "$root/$2/pool" > /dev/null
}

# empty NAME REPOSITORY: a package that the role names and this test has no program for.
empty() {
  mkdir -p "$1/DEBIAN"
  printf '%s\n' "Package: $1" 'Version: 99.0' 'Architecture: amd64' 'Maintainer: lab <lab@example.test>' \
    'Description: stands for the real one' > "$1/DEBIAN/control"
  packed "$1" "$2"
}

# PostgreSQL: the same names, another version.
major=$(apt-cache depends postgresql | grep -Po 'postgresql-\K[0-9]+' | head -n1)
for package in "postgresql-$major" "postgresql-client-$major"; do
  unpacked "$package"
  sed -i 's/^Version: .*/Version: 99.0-1.pgdg/' "$package/DEBIAN/control"
  packed "$package" pgdg
done

# Docker: its engine has other names, and runc comes with containerd.io.
unpacked docker.io containerd
sed -i -e 's/^Package: .*/Package: docker-ce/' -e 's/^Version: .*/Version: 5:99.0/' -e '/^\(Built-Using\|Conflicts\|Recommends\|Suggests\|Breaks\|Replaces\):/d' \
  -e '/^Depends:/s/containerd[^,]*/containerd.io, docker-ce-cli/' docker.io/DEBIAN/control
packed docker.io docker
sed -i -e '/^\(Built-Using\|Conflicts\|Breaks\|Replaces\):/d' -e 's/^Package: .*/Package: containerd.io/' -e 's/^Version: .*/Version: 99.0/' containerd/DEBIAN/control
packed containerd docker
if [ "$release" = trixie ]; then
  unpacked docker-cli
  sed -i -e '/^\(Built-Using\|Conflicts\|Breaks\|Replaces\):/d' -e 's/^Package: .*/Package: docker-ce-cli/' -e 's/^Version: .*/Version: 5:99.0/' docker-cli/DEBIAN/control
  packed docker-cli docker
else
  empty docker-ce-cli docker
fi
empty docker-buildx-plugin docker
empty docker-compose-plugin docker

# nginx.org: one package, no sites-enabled, a welcome page in conf.d, workers run as nginx.
binary=nginx
[ "$release" = bullseye ] && binary=nginx-core
unpacked "$binary" nginx-common
version=$(sed -n 's/^Version: \([0-9.]*\).*/\1/p' "$binary/DEBIAN/control")
built=upstream-nginx
mkdir -p $built/{DEBIAN,usr/sbin,etc/nginx/conf.d,lib/systemd/system,var/log/nginx,var/lib/nginx,usr/share/nginx/html}
cp "$binary/usr/sbin/nginx" $built/usr/sbin/
cp nginx-common/etc/nginx/mime.types $built/etc/nginx/
find nginx-common -name nginx.service -exec cp {} $built/lib/systemd/system/ \;
echo welcome > $built/usr/share/nginx/html/index.html
cat > $built/etc/nginx/nginx.conf <<'conf'
user nginx;
pid /run/nginx.pid;
events {}
http { include /etc/nginx/mime.types; include /etc/nginx/conf.d/*.conf; }
conf
echo 'server { listen 80; root /usr/share/nginx/html; }' > $built/etc/nginx/conf.d/default.conf
printf '%s\n' '#!/bin/sh' 'set -e' 'id nginx > /dev/null 2>&1 || useradd --system --home-dir /nonexistent --no-create-home nginx' \
  'systemctl daemon-reload' 'systemctl enable --quiet --now nginx.service' > $built/DEBIAN/postinst
chmod 0755 $built/DEBIAN/postinst
printf '%s\n' 'Package: nginx' "Version: 99:$version-1~$release" 'Architecture: amd64' 'Maintainer: lab <lab@example.test>' \
  "$(grep '^Depends:' "$binary/DEBIAN/control" | sed -E -e 's/(, )?(nginx-common|libnginx-mod)[^,]*//g' -e 's/Depends: , /Depends: /')" \
  'Description: nginx as nginx.org lays it out' > $built/DEBIAN/control
packed $built nginx
echo "$version" > $root/nginx-version

gpg --batch --passphrase '' --quick-generate-key upstream@lab rsa2048 sign never
gpg --batch --armor --export upstream@lab > $root/key.asc
gpg --batch --with-colons --fingerprint upstream@lab | awk -F: '/^fpr/ {print $10; exit}' > $root/fingerprint
# signed REPOSITORY SUITE COMPONENT
signed() {
  cd "$root/$1"
  mkdir -p "dists/$2/$3/binary-amd64"
  apt-ftparchive packages pool > "dists/$2/$3/binary-amd64/Packages"
  apt-ftparchive -o APT::FTPArchive::Release::Origin=test -o "APT::FTPArchive::Release::Suite=$2" \
    -o "APT::FTPArchive::Release::Codename=$2" -o "APT::FTPArchive::Release::Components=$3" \
    -o APT::FTPArchive::Release::Architectures=amd64 release "dists/$2" > /tmp/Release
  gpg --batch --clearsign --output "dists/$2/InRelease" /tmp/Release
}
signed pgdg "$release-pgdg" main
signed docker "$release" stable
signed nginx "$release" nginx

printf '%s\n' [Service] "ExecStart=python3 -m http.server --bind 127.0.0.1 --directory $root 8090" \
  [Install] WantedBy=multi-user.target > /etc/systemd/system/upstream-repositories.service
systemctl enable --now --quiet upstream-repositories.service
rm -rf /var/lib/apt/lists/* /tmp/packages
echo "$major" > $root/complete
