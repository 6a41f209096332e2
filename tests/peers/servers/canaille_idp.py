"""In: TLS_CERT, TLS_KEY, PORT (0 = a free one), and as the first argument {"users": […], "clients": […]} (JSON).

Out: Canaille on https://localhost, with these people and programs in memory. Tokens of programs are opaque, those of
people JWTs without a scope; their audience is the list of clients that may introspect them, and the introspection writes
times as floats. Prints {"port", "pid"} once bound.
"""

import asyncio
import json
import os
import socket
import sys
import warnings

warnings.filterwarnings("ignore")

from canaille.app import models  # noqa: E402
from canaille.backends import Backend  # noqa: E402
from canaille.hypercorn.app import create_app  # noqa: E402
from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402


def main():
    content = json.loads(sys.argv[1])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    listener.listen(128)
    port = listener.getsockname()[1]
    app = create_app(configuration(port), env_file=None, wrap_asgi=False)
    with app.app_context(), Backend.instance.session():
        fill(content)
    from asgiref.wsgi import WsgiToAsgi

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile, config.keyfile = os.environ["TLS_CERT"], os.environ["TLS_KEY"]
    config.accesslog = None
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
    asyncio.run(serve(WsgiToAsgi(app), config))


def configuration(port):
    return {
        "SECRET_KEY": "peers",
        "SERVER_NAME": f"localhost:{port}",
        "PREFERRED_URL_SCHEME": "https",
        "CANAILLE": {"DATABASE": "memory", "SMTP": None, "LOGGING": None},
        "CANAILLE_OIDC": {"DYNAMIC_CLIENT_REGISTRATION_OPEN": True, "REQUIRE_NONCE": False},
    }


def fill(content):
    for user in content["users"]:
        Backend.instance.save(models.User(**{"formatted_name": user["user_name"], "family_name": "Peers", **user}))
    clients = [models.Client(**client) for client in content["clients"]]
    for client in clients:
        Backend.instance.save(client)
    for client in clients:
        client.audience = clients
        Backend.instance.save(client)


if __name__ == "__main__":
    main()
