"""Every setting of the project, typed and described once, and the only place that reads the environment.

Nothing is read at import: `load_settings()` reads the environment and a `.env` file of the working directory, and
`secret()` looks up a credential that `customers.yaml` names. `python -m optiinfra_pipelines.settings --help` prints
what there is to set.
"""

import argparse
import os
import re
import textwrap
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from optiinfra_pipelines.errors import CollectionError

ENV_FILE = ".env"
PREFIX = "OPTIINFRA_"

_DUCKDB = "duckdb:///"
_CLUSTER = r"^[A-Za-z_][A-Za-z0-9_]*$"
_MEMORY = r"^\d+(\.\d+)?\s?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
_ALERT_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
# Alert URLs hold commas of their own (mailto://...?to=a,b), so a comma parts two only where a scheme follows it.
_ALERT_URL_BORDER = re.compile(r"\n|,\s*(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)


class SettingsError(CollectionError):
    """The environment does not make valid settings; the message lists every mistake by variable name."""


@dataclass(frozen=True)
class DuckDBAddress:
    """Where the embedded warehouse lives: an absolute path of a file."""

    path: Path


@dataclass(frozen=True)
class ClickHouseAddress:
    """Where the ClickHouse server listens for HTTP, and as whom to log in."""

    host: str
    port: int
    user: str
    password: SecretStr
    secure: bool
    cluster: str | None


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    return path


def _split_alert_urls(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(url.strip() for url in _ALERT_URL_BORDER.split(value) if url.strip())


def _check_alert_urls(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, url in enumerate(urls, 1):
        if not _ALERT_URL.fullmatch(url.get_secret_value()):
            raise ValueError(f"entry {number} is not a URL of the form service://..., see the list of apprise services")
    return urls


def _check_web_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    return url.rstrip("/")


def _check_warehouse(address: str) -> str:
    if address.startswith("duckdb:"):
        if not address.startswith(_DUCKDB) or address.removeprefix(_DUCKDB) in ("", ":memory:"):
            raise ValueError("must name a file, for example duckdb:///{home}/warehouse.duckdb")
        return address
    parts = urlsplit(address)
    if parts.scheme not in ("clickhouse", "clickhouses"):
        raise ValueError("must begin with duckdb:///, clickhouse:// or clickhouses://")
    if parts.password is not None:
        raise ValueError("must not hold a password; put it into OPTIINFRA_WAREHOUSE_PASSWORD")
    if not re.fullmatch(r"([^@/]+@)?(\[[0-9a-fA-F:.]+\]|[^:@/]+)(:\d{1,5})?", parts.netloc):
        raise ValueError("must name a host, and a port by number: clickhouse://user@host:8123")
    if parts.port == 0:  # reading the port raises by itself above 65535
        raise ValueError("must name a port from 1 to 65535")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must end after the port: databases are named by the tables' schemas (optiinfra_raw, ...)")
    return address


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """All settings, validated; made by `load_settings()`. Field `home` is the variable OPTIINFRA_HOME, and so on."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    home: AbsolutePath = Field(
        default=Path(".optiinfra"),
        description="Folder of the embedded warehouse and of DAGSTER_HOME; made where absent.",
    )
    warehouse: Annotated[str, AfterValidator(_check_warehouse)] = Field(
        default="duckdb:///{home}/warehouse.duckdb",
        description=(
            "Warehouse: duckdb:///path (embedded; {home} stands for OPTIINFRA_HOME, a path without a leading slash is "
            "relative), clickhouse://user@host:8123, or clickhouses://user@host:8443 for HTTPS."
        ),
    )
    warehouse_password: SecretStr = Field(default=SecretStr(""), description="Password of the ClickHouse user.")
    clickhouse_cluster: str | None = Field(
        default=None,
        pattern=_CLUSTER,
        description="ClickHouse cluster; with it every table is ReplicatedMergeTree + Distributed.",
    )
    customers: AbsolutePath = Field(
        default=Path("customers.yaml"), description="The file that names customers, their clouds and their credentials."
    )
    alert_urls: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_alert_urls), AfterValidator(_check_alert_urls)
    ] = Field(
        default=(),
        description=(
            "Where alerts go: apprise URLs (Slack, Teams, e-mail, PagerDuty, webhook), one a line or "
            "comma-separated. Without any, an alert is one JSON line on standard error."
        ),
    )
    web_url: Annotated[str, AfterValidator(_check_web_url)] = Field(
        default="http://127.0.0.1:3000", description="Address of the Dagster web UI, for the links in alerts."
    )
    focus_model: Annotated[AbsolutePath, AfterValidator(_existing_file)] | None = Field(
        default=None, description="A published FOCUS model file (model-1.2.json), for the FOCUS conformance rules."
    )
    freshness_hours: int = Field(
        default=36, ge=1, description="Hours after which a customer's newest collection counts as stale."
    )
    retention_loads: int = Field(
        default=5, ge=1, description="How many superseded loads of a slice are kept as history of what was believed."
    )
    api_timeout: float = Field(
        default=30, gt=0, allow_inf_nan=False, description="Seconds that one answer of a cloud's API may take."
    )
    api_attempts: int = Field(default=5, ge=1, description="How often one request to a cloud's API is sent at most.")
    api_budget_usd: Decimal = Field(
        default=Decimal(10),
        ge=0,
        allow_inf_nan=False,
        description="What API calls that clouds charge for may cost a customer on a UTC day, in USD.",
    )
    keep_unredacted_text: bool = Field(
        default=False,
        description=(
            "Keep prompts and answers in the warehouse as they were logged. What is sent to the judge is redacted in "
            "any case."
        ),
    )
    redactor: Literal["builtin", "presidio"] = Field(
        default="builtin",
        description="Which rules find personal data: the built-in ones, or Presidio's as well (extra `presidio`).",
    )
    sampling_rate: Decimal = Field(
        default=Decimal(1), ge=0, le=1, description="Share of each application's interactions that is judged."
    )
    samples_per_window: int = Field(
        default=20, ge=0, description="Interactions judged at least, per application, model, variant and 15 minutes."
    )
    groq_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="GROQ_API_KEY",
        description="Key of the judge. Without one, nothing is evaluated and runs say so.",
    )
    groq_base_url: Annotated[str, AfterValidator(_check_web_url)] = Field(
        default="https://api.groq.com",
        validation_alias="GROQ_BASE_URL",
        description="Address of Groq or of any OpenAI-compatible server, without /openai/v1.",
    )
    groq_model: str = Field(
        default="openai/gpt-oss-20b", validation_alias="GROQ_MODEL", min_length=1, description="Model that judges."
    )
    llm_enabled: bool = Field(
        default=True, validation_alias="LLM_ENABLED", description="false: no call to the judge, and no score."
    )
    explain_rejections: bool = Field(
        default=True,
        description="Whether the judge's model may explain a rejected deployment in words; false: a plain sentence.",
    )
    demo: bool = Field(
        default=False, description="Demo mode: a rollback that would be asked for is a line on standard error instead."
    )
    llm_timeout: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        validation_alias="LLM_TIMEOUT",
        description="Seconds that one answer of the judge may take.",
    )
    llm_max_retries: int = Field(
        default=3, ge=0, validation_alias="LLM_MAX_RETRIES", description="How often one call is repeated at most."
    )
    llm_concurrency: int = Field(
        default=32, ge=1, le=256, validation_alias="LLM_CONCURRENCY", description="Calls to the judge at one time."
    )
    llm_requests_per_minute: int | None = Field(
        default=None, ge=1, validation_alias="LLM_REQUESTS_PER_MINUTE", description="Limit of the judge's account."
    )
    llm_tokens_per_minute: int | None = Field(
        default=None, ge=1, validation_alias="LLM_TOKENS_PER_MINUTE", description="Limit of the judge's account."
    )
    llm_requests_per_day: int | None = Field(
        default=None, ge=1, validation_alias="LLM_REQUESTS_PER_DAY", description="Limit of the judge's account."
    )
    llm_tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        validation_alias="LLM_TOKENS_PER_DAY",
        description="Limit of the judge's account; Groq's free plan: 200000, which no answer tells.",
    )
    llm_budget_usd_per_day: Decimal = Field(
        default=Decimal(5),
        ge=0,
        allow_inf_nan=False,
        validation_alias="LLM_BUDGET_USD_PER_DAY",
        description="What the judge may cost on a UTC day, all customers together.",
    )
    llm_budget_usd_per_run: Decimal = Field(
        default=Decimal(1),
        ge=0,
        allow_inf_nan=False,
        validation_alias="LLM_BUDGET_USD_PER_RUN",
        description="What the judge may cost in one run.",
    )
    llm_price_input: Decimal | None = Field(
        default=None,
        ge=0,
        validation_alias="LLM_PRICE_INPUT",
        description="USD per million tokens sent; needed for models whose price is not built in.",
    )
    llm_price_cached: Decimal | None = Field(
        default=None, ge=0, validation_alias="LLM_PRICE_CACHED", description="The same of tokens that were cached."
    )
    llm_price_output: Decimal | None = Field(
        default=None, ge=0, validation_alias="LLM_PRICE_OUTPUT", description="The same of tokens answered."
    )
    duckdb_memory_limit: str = Field(
        default="1GB", pattern=_MEMORY, description="Memory that one DuckDB connection may use."
    )
    duckdb_lock_timeout: float = Field(
        default=120,
        ge=0,
        allow_inf_nan=False,
        description="Seconds to wait for another process that holds the embedded warehouse.",
    )

    @property
    def warehouse_address(self) -> DuckDBAddress | ClickHouseAddress:
        """The warehouse setting, taken apart; its engine is the type."""
        if self.warehouse.startswith(_DUCKDB):
            return DuckDBAddress(
                _absolute(Path(self.warehouse.removeprefix(_DUCKDB).replace("{home}", str(self.home))))
            )
        parts = urlsplit(self.warehouse)
        secure = parts.scheme == "clickhouses"
        return ClickHouseAddress(
            host=parts.hostname or "",
            port=parts.port or (8443 if secure else 8123),
            user=unquote(parts.username or "default"),
            password=self.warehouse_password,
            secure=secure,
            cluster=self.clickhouse_cluster,
        )


def load_settings() -> Settings:
    """Read the environment and `.env`; SettingsError with every mistake where they do not make valid settings."""
    try:
        return Settings()
    except ValidationError as error:
        mistakes = [f"  {_variable(str(mistake['loc'][0]))}: {_message(mistake)}" for mistake in error.errors()]
        raise SettingsError(
            "not_configured", f"wrong settings in the environment or {ENV_FILE}:\n" + "\n".join(mistakes)
        ) from None


def secret(name: str, *, connection: str) -> SecretStr:
    """The credential in environment variable (or `.env` line) `name`, which `customers.yaml` names.

    `connection` ("acme/aws-main") is only for the message of the CollectionError `not_configured` that is raised
    where the variable is absent, empty or unfit. Space around it, such as the line break of a mounted file, is cut off.
    """
    value = (os.environ.get(name) or dotenv_values(ENV_FILE).get(name) or "").strip()
    if not value:
        raise CollectionError(
            "not_configured",
            f"connection {connection} needs the environment variable {name}, which is not set; "
            f"set it, or add it to {ENV_FILE}",
        )
    if not value.startswith("{") and not (value.isascii() and value.isprintable()):
        raise CollectionError(
            "not_configured",
            f"the environment variable {name} of connection {connection} holds a character that no credential has, "
            "such as a line break in its middle; set it anew",
        )
    return SecretStr(value)


def _variable(field: str) -> str:
    """The environment variable of a field; what other tools read as well goes by their name for it."""
    known = Settings.model_fields.get(field)
    if known is None:
        return field  # pydantic names a field by its alias where it has one
    return str(known.validation_alias or PREFIX + field.upper())


def _message(mistake: Any) -> str:
    if mistake["type"] == "string_pattern_mismatch":
        return "must look like 1GB or 512MB" if mistake["loc"][0] == "duckdb_memory_limit" else "must be a plain name"
    message = str(mistake["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message.replace("should be", "must be")


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return "" if default in (None, ()) else str(default)


def env_example() -> str:
    """What `.env.example` holds: every variable with its description and default, commented out."""
    parts = [f"# Copy to {ENV_FILE} and take the # off what you change. Written by: optiinfra_pipelines.settings"]
    for name, field in Settings.model_fields.items():
        comment = textwrap.fill(
            field.description or "", 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        parts.append(f"{comment}\n# {_variable(name)}={_default(name)}")
    return "\n\n".join(parts) + "\n"


def _table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = _default(name)
        rows.append(f"{_variable(name)}{f' [{default}]' if default else ''}")
        rows.append(textwrap.indent(textwrap.fill(field.description or "", 100, break_on_hyphens=False), "    "))
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Print the settings that exist, or with --env-example the content of `.env.example`."""
    parser = argparse.ArgumentParser(
        prog="python -m optiinfra_pipelines.settings",
        description=f"Settings are environment variables or lines of {ENV_FILE}; in brackets: the default.",
        epilog=_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env-example", action="store_true", help="print the content of .env.example")
    if parser.parse_args(arguments).env_example:
        print(env_example(), end="")
    else:
        parser.print_help()


if __name__ == "__main__":
    main()
