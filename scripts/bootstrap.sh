#!/bin/sh
# Sets up a fresh Debian or Ubuntu that has Python 3.11+, git and make: `scripts/bootstrap.sh environment|collections|engine`.
# Needs no terminal. Installs packages only as root or where sudo asks for no password; else it says what to type.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup | $*" >&2; }

fail() {
    printf 'setup | %s\n' "$@" >&2
    exit 1
}

timed() { # timed TITLE FUNCTION
    started=$(date +%s)
    say "$1 …"
    "$2"
    say "$1: done in $(($(date +%s) - started)) s"
}

may_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_packages() { # install_packages WHY PACKAGE…
    why=$1
    shift
    may_be_root || fail "$why. Type:" "    sudo apt-get update && sudo apt-get install --yes $*" "and run make again."
    say "$why: installing $*"
    mkdir -p .lab
    {
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
    } </dev/null >.lab/apt.log 2>&1 || fail "the packages could not be installed:" "$(tail -n 5 .lab/apt.log)"
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and none is on the PATH ($(python3 --version 2>/dev/null || echo 'no python3'))."
}

# ---- environment: .venv as requirements.lock has it

create_environment() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install_packages "$python cannot make virtual environments" "python$version-venv"
    fi
    [ -x .venv/bin/pip ] || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
        --requirement requirements.lock </dev/null
    touch .venv/complete
}

# ---- collections: what Molecule needs

install_collections() { .venv/bin/python scripts/install_collections.py; }

# ---- engine: Docker, and the programs the lab calls

see_that_it_may_be_used() {
    if docker info 2>&1 | grep -q 'permission denied'; then
        fail "a Docker engine runs, but $(id -un) may not use it. Type:" \
            "    sudo usermod --append --groups docker $(id -un)" "log in anew, and run make again."
    fi
}

engine_answers() { docker info >/dev/null 2>&1; }

docker_packages() {
    echo docker.io iptables
    # Debian 13 has the client in a package of its own.
    if apt-cache show docker-cli 2>/dev/null | grep -q '^Package'; then echo docker-cli; fi
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl enable --now docker.service </dev/null
        return
    fi
    say "no systemd here: running dockerd in the background, log in .lab/dockerd.log"
    mkdir -p .lab
    # Away from make's terminal and pipes: it outlives the command that started it.
    as_root sh -c 'setsid dockerd </dev/null >.lab/dockerd.log 2>&1 & echo $! >.lab/dockerd.pid'
}

ensure_engine() {
    command -v ssh-keygen >/dev/null || install_packages "there is no SSH client" openssh-client
    command -v curl >/dev/null || install_packages "there is no curl" curl
    engine_answers && return
    see_that_it_may_be_used
    [ -z "${DOCKER_HOST:-}" ] || fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST."
    may_be_root || fail "no Docker engine answers. Type:" \
        "    sudo apt-get update && sudo apt-get install --yes docker.io iptables && sudo usermod --append --groups docker $(id -un)" \
        "log in anew, and run make again."
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        as_root apt-get update </dev/null >/dev/null
        # shellcheck disable=SC2046 # a list of names
        install_packages "no Docker engine here" $(docker_packages)
    fi
    engine_answers || start_engine
    attempts=0
    until engine_answers; do
        see_that_it_may_be_used
        attempts=$((attempts + 1))
        [ "$attempts" -lt 60 ] || fail "the Docker engine did not come up:" "$(tail -n 5 .lab/dockerd.log 2>/dev/null || docker info 2>&1 | tail -n 3)"
        sleep 0.5
    done
}

case ${1:-} in
    environment) timed "Python environment" create_environment ;;
    collections) timed "collections" install_collections ;;
    engine) if ! engine_answers || ! command -v ssh-keygen >/dev/null || ! command -v curl >/dev/null; then timed "Docker engine" ensure_engine; fi ;;
    *) fail "usage: $0 environment|collections|engine" ;;
esac
