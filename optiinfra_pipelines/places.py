"""Places that `customers.yaml` names: buckets, folders, tables and workspaces where bills and interactions lie.

Each is checked as it is read; what is named here is never contacted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

AWS = ("access_key_id", "secret_access_key", "session_token", "role_arn")
_BLOB = ("account_name", "account_key", "sas_token", "connection_string")
AZURE = ("tenant_id", "client_id", "client_secret")
# What a location may need, by its scheme. From cost-explorer on an API tells, and not files.
CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "s3": AWS,
    "gs": ("service_account_json",),
    "az": _BLOB,
    "abfss": _BLOB,
    "": (),
    "cost-explorer": (*AWS, "external_id"),
    "bigquery": ("service_account_json",),
    "cost-management": AZURE,
    "vultr": ("api_key",),
    "log-analytics": AZURE,
    "clickhouse": ("clickhouse_user", "clickhouse_password"),
}
API_BILLS: Mapping[str, str] = {
    "cost-explorer": "aws",
    "bigquery": "gcp",
    "cost-management": "azure",
    "vultr": "vultr",
}

Text = Annotated[str, Field(min_length=1)]
LlmFormat = Literal["bedrock", "vertex", "azure", "opentelemetry"]
FILES = ("", "s3", "gs", "az", "abfss")
_LLM_SCHEMES: Mapping[LlmFormat, tuple[str, ...]] = {
    "bedrock": FILES,
    "vertex": ("bigquery",),
    "azure": ("log-analytics",),
    "opentelemetry": (*FILES, "clickhouse"),
}


class Model(BaseModel):
    """What every part of customers.yaml is: frozen, closed, and silent about the values it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Place(Model):
    """A location; `endpoint_url` and `region` are of the service that it lies in, where they are not the usual ones."""

    schemes: ClassVar[tuple[str, ...]] = tuple(CREDENTIALS)

    location: Text
    endpoint_url: str | None = None
    region: Text | None = None

    @property
    def scheme(self) -> str:
        """s3, gs, az, bigquery, ...; empty for a local path."""
        return scheme_of(self.location)

    @field_validator("location")
    @classmethod
    def _location_is_understood(cls, location: str, info: ValidationInfo) -> str:
        scheme = scheme_of(location)
        if scheme not in cls.schemes:
            raise ValueError(f"must begin with {', '.join(f'{each}://' for each in cls.schemes if each)}, or be a path")
        if scheme:
            _check_remote(scheme, location)
            return scheme + location[len(scheme) :].rstrip("/")
        return str((((info.context or {}).get("folder") or Path.cwd()) / Path(location).expanduser()).resolve())

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint_is_an_address(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        if scheme_of(info.data.get("location", "s3://")) == "":
            raise ValueError("has no meaning for a local location; leave it out")
        return web_address(url)


class LlmSource(Place):
    """Where an application's interactions with its models are logged, and in which format.

    `bedrock`: invocation logs in a bucket or folder; `vertex`: bigquery://project/dataset/table; `azure`:
    log-analytics://workspace-id; `opentelemetry`: OTLP/JSON or JSON lines in a bucket or folder, or
    clickhouse://database/table as the OpenTelemetry Collector writes it, its server at `endpoint_url`.
    `application` and `variant` stand in where a record names none; `application_label` and `variant_label` are the
    keys (request metadata, labels, span or resource attributes) by which records name them. `folders` is how folders
    below the location tell the UTC hour, by strftime, such as %Y/%m/%d/%H: then only those that matter are listed.
    """

    schemes: ClassVar[tuple[str, ...]] = (*FILES, "bigquery", "log-analytics", "clickhouse")

    format: LlmFormat
    application: Text | None = None
    application_name: Text | None = None
    variant: Text | None = None
    application_label: Text = "app"
    variant_label: Text = "variant"
    folders: Text | None = None

    @field_validator("format")
    @classmethod
    def _format_fits_the_location(cls, given: LlmFormat, info: ValidationInfo) -> LlmFormat:
        location = info.data.get("location")
        schemes = _LLM_SCHEMES[given]
        if location is not None and scheme_of(location) not in schemes:
            named = ", ".join(f"{each}://" if each else "a path" for each in schemes)
            raise ValueError(f"must fit the location: {given} logs are read from {named}")
        return given


def scheme_of(location: str) -> str:
    """The scheme of a location in lower case; empty for a local path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
    return match.group(1).lower() if match else ""


def _check_remote(scheme: str, location: str) -> None:
    parts = urlsplit(location)
    container, at, host = parts.netloc.rpartition("@")
    if parts.query or parts.fragment or ":" in parts.netloc or "@" in container or (at and scheme != "abfss"):
        raise ValueError(
            f"must be {scheme}:// with bucket and path only; keys and tokens are named under `credentials`"
        )
    if not host or (scheme == "abfss" and not container):
        raise ValueError(f"names no {'container@account' if scheme == 'abfss' else 'bucket or container'}")


def web_address(url: str) -> str:
    """The address `url` without a slash at its end; ValueError where it is none, or holds a user or password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an http:// or https:// address without a user or password")
    return url.rstrip("/")
