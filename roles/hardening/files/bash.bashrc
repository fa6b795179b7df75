# Written by Shipshape. As the distribution has it, but for the umask.
umask 027

# If not running interactively, don't do anything
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

if [ -z "${debian_chroot:-}" ] && [ -r /etc/debian_chroot ]; then
    debian_chroot=$(cat /etc/debian_chroot)
fi

# Somebody who has a prompt for sudo is smart enough for it.
if ! [ -n "${SUDO_USER-}" -a -n "${SUDO_PS1-}" ]; then
    PS1='${debian_chroot:+($debian_chroot)}\u@\h:\w\$ '
fi

if [ -x /usr/lib/command-not-found ]; then
    command_not_found_handle() { /usr/lib/command-not-found -- "$1"; }
elif [ -x /usr/share/command-not-found/command-not-found ]; then
    command_not_found_handle() { /usr/share/command-not-found/command-not-found -- "$1"; }
fi
