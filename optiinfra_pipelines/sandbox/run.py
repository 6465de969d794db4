"""`python -m optiinfra_pipelines.sandbox.run`: the sandbox's clouds and judge, two stages of bills and the last days of
a fleet materialised, truths compared.

The product runs in processes of its own and meets the sandbox only through customers.yaml and the environment.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import chain

import httpx
from rich.console import Console

from optiinfra_pipelines.sandbox import groq_server, webhook_server
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.exports import publish
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.fleet_truths import fleet_differences
from optiinfra_pipelines.sandbox.gate_truths import comparison_differences, gate_differences
from optiinfra_pipelines.sandbox.groq_server import serve_groq
from optiinfra_pipelines.sandbox.interaction_logs import publish_interactions
from optiinfra_pipelines.sandbox.interaction_truths import interaction_differences
from optiinfra_pipelines.sandbox.interactions import Corpus
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, customers_yaml, environment
from optiinfra_pipelines.sandbox.verify import differences
from optiinfra_pipelines.sandbox.webhook_server import serve_webhook
from optiinfra_pipelines.settings import Settings, load_settings
from optiinfra_pipelines.warehouse import open_warehouse

GATE_DAYS = 10  # from which on there are baselines before the planted deployment
_MATERIALIZE = [sys.executable, "-m", "optiinfra_pipelines.defs.materialize"]


def main(arguments: list[str] | None = None) -> int:
    """Publish, materialise, restate, materialise, compare; then run `--then` beside the servers. 0 when all is true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--then", help="command to run while the sandbox's clouds are up, such as the web UI")
    parser.add_argument("--days", type=int, default=14, help="UTC days of metrics, today among them (14)")
    options = parser.parse_args(arguments)
    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    customers = settings.home / "customers.yaml"
    with (
        serve_s3(ACCESS_KEY_ID) as endpoint,
        serve_clouds(Fleet(datetime.now(UTC).date()), logs=endpoint) as clouds,
        serve_groq() as judge,
        serve_webhook() as webhook,
    ):
        described = partial(webhook_server.applications, url=webhook)
        customers.write_text(customers_yaml(endpoint, None, clouds.connections, described), encoding="utf-8")
        given = {**environment(), **clouds.environment(), **groq_server.environment(judge)}
        given |= webhook_server.environment()
        given["OPTIINFRA_CUSTOMERS"] = str(customers)
        env = {**os.environ, **given}
        failed = _materialise_and_compare(settings, endpoint, clouds, env, options.days)
        if not failed and options.days >= GATE_DAYS:
            failed = _compare_verdicts(settings, clouds, webhook)
        if failed or not options.then:
            return failed
        return subprocess.run(shlex.split(options.then), env=env, check=False).returncode


def _materialise_and_compare(
    settings: Settings, endpoint: str, clouds: Clouds, env: Mapping[str, str], days: int
) -> int:
    """The status that the command ends with: 0 where everything ran and is as planted."""
    console = Console(stderr=True)
    console.print("stage 1: bills of two customers on AWS, Azure, GCP and Vultr")
    publish(endpoint, 1)
    if ended := subprocess.run([*_MATERIALIZE, "--bills-only"], env=env, check=False).returncode:
        return ended
    console.print(f"stage 2: one month restated, a late file, a new assembly; the fleet's last {days} days")
    truths = publish(endpoint, 2)
    corpus, published_at = Corpus(clouds.fleet.today), datetime.now(UTC)
    publish_interactions(endpoint, corpus, published_at)
    if ended := subprocess.run([*_MATERIALIZE, "--days", str(days)], env=env, check=False).returncode:
        return ended
    warehouse = open_warehouse(settings)
    found = list(
        chain(
            differences(warehouse, truths),
            fleet_differences(warehouse, clouds.fleet),
            interaction_differences(warehouse, corpus, published_at),
        )
    )
    for each in found[:50]:
        console.print(f"[red]not as planted:[/red] {each}", highlight=False)
    if found:
        console.print(f"[red]{len(found)} things are not as planted[/red]")
        return 1
    console.print(
        f"[green]as planted:[/green] {len(truths.invoices)} invoices, {len(truths.providers)} provider totals and "
        f"{len(truths.rejected)} rejected rows, to the last digit"
    )
    console.print(
        f"[green]as planted:[/green] {len(clouds.fleet.resources)} resources of {len(clouds.fleet.clouds)} clouds, "
        "each of their metrics in each window, and their bills"
    )
    console.print("[green]as planted:[/green] the interactions of 3 applications on 4 clouds, redacted and judged")
    return 0


def _compare_verdicts(settings: Settings, clouds: Clouds, webhook: str) -> int:
    """The status where the gate's verdicts are to be as planted: 0 where they are."""
    console = Console(stderr=True)
    warehouse, corpus = open_warehouse(settings), Corpus(clouds.fleet.today)
    received = httpx.get(webhook + webhook_server.RECEIVED_PATH).raise_for_status().json()
    found = [*gate_differences(warehouse, corpus, received), *comparison_differences(warehouse, corpus)]
    for each in found:
        console.print(f"[red]not as planted:[/red] {each}", highlight=False)
    if not found:
        console.print(
            "[green]as planted:[/green] the degraded model alone is rejected, one rollback was asked for, and the "
            "concise variant saves what it saves"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
