#!/usr/bin/env python3
"""In: the URL that a person's browser would open to log in. Out: where the provider sent that browser in the end.

A module for the Python clients, and a program for the others: it prints the last address, or with PEERS_BROWSER=visit calls
it, as a real browser does. SSL_CERT_FILE names the CA, PEERS_USER the person.
"""

import http.client
import os
import ssl
import sys
import urllib.parse

HOPS = 10


def follow(url, ca, user):
    """Follows redirects at the provider, with its cookies; returns the first address that is not the provider's."""
    home = origin(url)
    cookies = {}
    for _ in range(HOPS):
        status, headers, body = get(url, ca, cookies, user)
        if status // 100 != 3:
            raise RuntimeError(f"the provider answered {status} at {url}: {body[:300]}")
        url = urllib.parse.urljoin(url, headers["location"])
        if origin(url) != home:
            return url
    raise RuntimeError(f"more than {HOPS} redirects; the last to {url}")


def get(url, ca, cookies, user):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    sent = {"accept": "text/html", "x-peers-user": user}
    if cookies:
        sent["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    connection.request("GET", f"{parts.path or '/'}?{parts.query}", headers=sent)
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    for line in answer.headers.get_all("set-cookie") or []:
        name, _, value = line.split(";")[0].partition("=")
        cookies[name] = value
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def origin(url):
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


if __name__ == "__main__":
    last = follow(sys.argv[1], os.environ["SSL_CERT_FILE"], os.environ.get("PEERS_USER", "alice"))
    if os.environ.get("PEERS_BROWSER") == "visit":
        get(last, None, {}, "")
    else:
        print(last)
