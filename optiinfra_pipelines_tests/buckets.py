"""Buckets of the sandbox's S3 server for tests: objects put in, faults switched on, the location that reads them."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import boto3
import httpx
from botocore.config import Config
from pydantic import SecretStr

from optiinfra_pipelines.clouds.focus.locations import Location, open_location
from optiinfra_pipelines.customers import BillingSource

SECRET = "wJalrXUtnFEMI/hunter2"  # what no message may show


class Bucket:
    """A bucket of the sandbox's S3, and its faults."""

    def __init__(self, url: str, key: str = "AKIATEST") -> None:
        self.url, self.name = url, f"bills-{uuid4().hex[:8]}"
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=SECRET,
            config=Config(max_pool_connections=8),
        )
        self._client.create_bucket(Bucket=self.name)

    def put(self, **objects: str) -> None:
        """Write objects of text, whose keys are given with a double underscore for each /."""
        self.put_all({key.replace("__", "/"): body.encode() for key, body in objects.items()})

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects by their keys."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self._client.put_object(Bucket=self.name, Key=key, Body=objects[key]), objects))

    def location(self, prefix: str = "", key: str = "AKIATEST") -> Location:
        """The location below `prefix`, read with the access key id `key`."""
        source = BillingSource(location=f"s3://{self.name}/{prefix}", endpoint_url=self.url)
        credentials = {"access_key_id": SecretStr(key), "secret_access_key": SecretStr(SECRET)}
        return open_location(source, credentials)

    def fault(self, match: str, **fault: Any) -> None:
        """Let requests whose "METHOD /path?query" begins with `match` fail."""
        httpx.post(f"{self.url}/sandbox/faults", json={"match": match, **fault}).raise_for_status()

    def heal(self) -> None:
        """Forget all faults."""
        httpx.delete(f"{self.url}/sandbox/faults")
