"""A receiver of rollback requests on loopback for the sandbox: it takes what is signed, in time and new.

Run as `python -m optiinfra_pipelines.sandbox.webhook_server --port 0`. Its owner's side of `gate/rollback.py`, written
from what that promises to a receiver: the signature over timestamp and body, and the key that tells a repetition.
"""

import argparse
import hmac
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from hashlib import sha256
from threading import Lock
from time import time
from typing import Any

from optiinfra_pipelines.sandbox.gate import answer_json, read_body, serve, serve_apart

PATH, RECEIVED_PATH = "/rollback", "/sandbox/received"
VARIABLE, SECRET = "SANDBOX_ROLLBACK_SECRET", "canary-rollback-secret"
_SECONDS = 300  # that a signature is believed


class WebhookServer:
    """The WSGI application. RECEIVED_PATH (GET) lists every request that was signed rightly: its key and its body."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._received: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if asked == ("GET", RECEIVED_PATH):
            return answer_json(start_response, self._received)
        if asked != ("POST", PATH):
            return answer_json(start_response, {"error": "no such address"}, 404)
        body, timestamp = read_body(environ), environ.get("HTTP_X_OPTIINFRA_TIMESTAMP", "")
        signed = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()
        if not hmac.compare_digest(environ.get("HTTP_X_OPTIINFRA_SIGNATURE", ""), f"sha256={signed}"):
            return answer_json(start_response, {"error": "the signature is wrong"}, 401)
        if abs(time() - int(timestamp)) > _SECONDS:
            return answer_json(start_response, {"error": "the signature is too old"}, 401)
        with self._lock:
            self._received.append({"key": environ["HTTP_IDEMPOTENCY_KEY"], "body": json.loads(body)})
        return answer_json(start_response, {"status": "rolling back"})


def serve_webhook() -> AbstractContextManager[str]:
    """The server in a process of its own; yields its URL."""
    return serve_apart("optiinfra_pipelines.sandbox.webhook_server")


def applications(customer_id: str, url: str) -> list[dict[str, Any]]:
    """The customer's entries under `applications` in customers.yaml: who is asked to roll back, what tokens cost."""
    if customer_id != "acme":
        return []
    prices = {"gemini-2.5-flash": {"input": "0.30", "output": "2.50"}}
    return [
        {"id": "support-copilot", "rollback_webhook": {"url": f"{url}{PATH}", "secret": VARIABLE}, "prices": prices}
    ]


def environment() -> dict[str, str]:
    """The environment variable that the entries name."""
    return {VARIABLE: SECRET}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    serve(WebhookServer(), parser.parse_args().port)
