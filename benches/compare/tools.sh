#!/usr/bin/env bash
# In: nothing; as root on Debian. Out: nginx, HAProxy, wrk, h2load and valgrind are installed, and those
# services that this installation started are stopped again.
set -euo pipefail

[ "$(id -u)" = 0 ] || { echo "as root: apt-get install nginx-light haproxy wrk nghttp2-client valgrind" >&2; exit 1; }
fresh=()
for service in nginx haproxy; do
    command -v "$service" >/dev/null || fresh+=("$service")
done
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true # a dead extra source must not stop us; the next line would
apt-get install -y -qq --no-install-recommends nginx-light haproxy wrk nghttp2-client valgrind openssl
for service in "${fresh[@]}"; do
    if [ -d /run/systemd/system ]; then
        systemctl disable --quiet --now "$service"
    else
        service "$service" stop || true # it did not start, either
    fi
done
