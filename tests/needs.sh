#!/usr/bin/env bash
# In: "demo" or "test". Out: 0 when all programs that it needs are there; as root on Debian it installs
# the missing ones, else it names them.
set -euo pipefail
export PATH=$PATH:/usr/sbin # nginx, haproxy; not in the path of ordinary users

missing=()      # Debian packages
by_hand=()      # what apt is not to bring

need() { # program, package
    command -v "$1" >/dev/null || missing+=("$2")
}
rust() { # what, how to get it
    by_hand+=("$1: $2")
}

command -v cargo >/dev/null || rust "Rust 1.91 or newer" "https://rustup.rs"
need cc gcc
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
need cmake cmake # builds zlib-ng, which pingora links
need curl curl

if [ "${1:-test}" = test ]; then
    cargo fmt --version >/dev/null 2>&1 || rust rustfmt "rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || rust clippy "rustup component add clippy"
    need openssl openssl
    need python3 python3
    need pebble pebble             # an ACME directory of our own
    need haproxy haproxy           # sends the PROXY protocol
    need dnsmasq dnsmasq-base      # names of replicas
    need nginx nginx               # what imported configs are compared with
    need certbot certbot           # asks for challenges in a webroot
    need promtool prometheus       # what Prometheus says of the metrics
    need htpasswd apache2-utils    # password files as people have them
    need chromium chromium         # looks at the status page
    need systemd-analyze systemd   # judges the unit; and runs it, where namespaces can be had
    need ip iproute2               # for the loopback network of that systemd
    need promtool prometheus       # rules, and the dashboard's queries
    need docker-compose docker-compose # reads the Compose file; no engine is needed for that
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v node >/dev/null || by_hand+=("Node 20 or newer: https://nodejs.org")
    command -v npm >/dev/null || by_hand+=("npm: it comes with Node, or as Debian's package npm")
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || true # a dead extra source must not stop us; the next line would
        # in run level 1 Debian's packages do not start their services
        RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
    else
        by_hand+=("as root: apt-get install ${missing[*]}")
    fi
fi
if [ ${#by_hand[@]} -gt 0 ]; then
    echo "Please install first:" >&2
    printf '  %s\n' "${by_hand[@]}" >&2
    exit 1
fi
