"""`python -m optiinfra_pipelines.sandbox.run`: the sandbox's clouds, two stages of bills materialised, truths compared.

The product runs in processes of its own and meets the sandbox only through customers.yaml and the environment.
"""

import argparse
import os
import shlex
import subprocess
import sys

from rich.console import Console

from optiinfra_pipelines.sandbox.exports import publish
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, customers_yaml, environment
from optiinfra_pipelines.sandbox.verify import differences
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.warehouse import open_warehouse

_MATERIALIZE = [sys.executable, "-m", "optiinfra_pipelines.defs.materialize"]


def main(arguments: list[str] | None = None) -> int:
    """Publish, materialise, restate, materialise, compare; then run `--then` beside the servers. 0 when all is true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--then", help="command to run while the sandbox's clouds are up, such as the web UI")
    then = parser.parse_args(arguments).then
    console = Console(stderr=True)
    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    customers = settings.home / "customers.yaml"
    with serve_s3(ACCESS_KEY_ID) as endpoint:
        customers.write_text(customers_yaml(endpoint), encoding="utf-8")
        env = {**os.environ, **environment(), "OPTIINFRA_CUSTOMERS": str(customers)}
        console.print("stage 1: bills of two customers on AWS, Azure and GCP")
        publish(endpoint, 1)
        if ended := subprocess.run([*_MATERIALIZE, "--bills-only"], env=env, check=False).returncode:
            return ended
        console.print("stage 2: one month restated, a late file, a new assembly")
        truths = publish(endpoint, 2)
        if ended := subprocess.run(_MATERIALIZE, env=env, check=False).returncode:
            return ended
        found = list(differences(open_warehouse(settings), truths))
        for each in found:
            console.print(f"[red]not as planted:[/red] {each}", highlight=False)
        if found:
            return 1
        console.print(
            f"[green]as planted:[/green] {len(truths.invoices)} invoices, {len(truths.providers)} provider totals and "
            f"{len(truths.rejected)} rejected rows, to the last digit"
        )
        return subprocess.run(shlex.split(then), env=env, check=False).returncode if then else 0


if __name__ == "__main__":
    sys.exit(main())
