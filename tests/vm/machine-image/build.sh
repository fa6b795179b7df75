#!/bin/sh
# Makes a machine's disk, kernel and initial RAM disk, as root: build.sh DIRECTORY SIZE MMDEBSTRAP-ARGUMENT…
# Whoever owns DIRECTORY owns what is made in it.
set -eu
here=$(dirname "$0")
target=$1
size=$2
shift 2

root=$(mktemp --directory --tmpdir="$target" root.XXXXXX)
trap 'rm -rf "$root"' EXIT
# mmdebstrap may drop privileges, and wants to see the directory then.
chmod 0755 "$root"
mmdebstrap --quiet "$@" "$root"

cp --recursive --preserve=mode "$here/files/." "$root"
echo '/dev/vda / ext4 defaults,errors=remount-ro 0 1' >"$root/etc/fstab"
# As a cloud image has it: no lists before the first update, and neither keys nor an identity before the first boot.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb "$root"/etc/ssh/ssh_host_*_key*
: >"$root/etc/machine-id"
systemctl --quiet --root="$root" enable lab-seed.service systemd-networkd.service systemd-timesyncd.service
# It asks questions on the console of a machine that has no identity yet.
systemctl --quiet --root="$root" mask systemd-firstboot.service
systemctl --quiet --root="$root" set-default multi-user.target

cp --dereference "$root/vmlinuz" "$target/vmlinuz"
cp --dereference "$root/initrd.img" "$target/initrd.img"
mke2fs -q -t ext4 -d "$root" "$target/disk.img" "$size"
chown --reference="$target" "$target/vmlinuz" "$target/initrd.img" "$target/disk.img"
chmod 0644 "$target/vmlinuz" "$target/initrd.img" "$target/disk.img"
