#!/usr/bin/env bash
# In: nothing; as root on Debian. Out: nginx, HAProxy, wrk, h2load, valgrind and openssl are there, and those
# services that this installation started are stopped again. What was there before stays as it is.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing=() services=()
need() { # program, package, its service
    command -v "$1" >/dev/null && return
    missing+=("$2")
    [ -z "${3:-}" ] || services+=("$3")
}
need nginx nginx-light nginx
need haproxy haproxy haproxy
need wrk wrk
need h2load nghttp2-client
need valgrind valgrind
need openssl openssl

[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "as root: apt-get install ${missing[*]}" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true # a dead extra source must not stop us; the next line would
apt-get install -y -qq --no-install-recommends "${missing[@]}"
for service in "${services[@]}"; do
    if [ -d /run/systemd/system ]; then
        systemctl disable --quiet --now "$service"
    else
        service "$service" stop || true # it did not start, either
    fi
done
