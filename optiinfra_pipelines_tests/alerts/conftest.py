import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource


class Webhook:
    """A real HTTP server on loopback that keeps the JSON it accepts, and answers `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.accepted: list[dict[str, Any]] = []
        self.refused = 0
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if webhook.status == 200:
                    webhook.accepted.append(message)
                else:
                    webhook.refused += 1
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def url(self, path: str = "alerts-token-s3cr3t") -> str:
        return f"json://127.0.0.1:{self._server.server_port}/{path}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.accepted]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.close()


@pytest.fixture
def second_webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def settings_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no .env of the machine reaches a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTIINFRA_ALERT_URLS", raising=False)
    monkeypatch.setenv("OPTIINFRA_WEB_URL", "https://dagster.example")


@pytest.fixture(params=["sqlite", "in memory"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """Both kinds of event log: one file per run with an index (Dagster's default), and one log for all runs."""
    if request.param == "sqlite":
        with dg.instance_for_test() as sqlite:
            assert sqlite.event_log_storage.is_run_sharded
            yield sqlite
    else:
        with dg.DagsterInstance.ephemeral() as memory:
            assert not memory.event_log_storage.is_run_sharded
            yield memory


class Ticks:
    """One sensor as the daemon drives it: each tick gets the cursor that the last good one left."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor = sensor
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"notifier": NotifierResource()}
        )
        data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data.skip_message or ""
