#!/bin/sh
# Runs once, while the image is built: on Debian made from packages, or on Ubuntu's own image.
set -eu
export DEBIAN_FRONTEND=noninteractive

missing=$(for package in $PACKAGES; do dpkg-query --show "$package" >/dev/null 2>&1 || echo "$package"; done)
if [ -n "$missing" ]; then
    apt-get update
    # shellcheck disable=SC2086 # the list is meant to be split
    apt-get install --yes --no-install-recommends $missing
    apt-get clean
fi

# A cloud image has no lists before its first update, and each droplet its own identity.
rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*_key* /etc/apt/apt.conf.d/docker-clean
: >/etc/machine-id

# What only a real machine has: a console to log in at, and modules to load.
systemctl mask console-getty.service getty.target systemd-modules-load.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-firstboot.service
systemctl set-default multi-user.target

if [ -n "$DRESSED_AS" ]; then
    rm -f /etc/os-release
    install -m 0644 "/tmp/build/dress/$DRESSED_AS/os-release" /usr/lib/os-release
    ln -s ../usr/lib/os-release /etc/os-release
    install -m 0644 "/tmp/build/dress/$DRESSED_AS/lsb-release" /etc/lsb-release
fi
