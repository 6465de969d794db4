import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.settings import (
    ClickHouseAddress,
    DuckDBAddress,
    Settings,
    SettingsError,
    env_example,
    load_settings,
    main,
    secret,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no .env of the machine reaches a test."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"OPTIINFRA_{name.upper()}", raising=False)


def test_without_any_setting_the_warehouse_is_a_file_in_the_home_folder(tmp_path: Path):
    settings = load_settings()
    assert settings.home == tmp_path / ".optiinfra"
    assert settings.customers == tmp_path / "customers.yaml"
    assert settings.warehouse_address == DuckDBAddress(tmp_path / ".optiinfra/warehouse.duckdb")
    assert (settings.freshness_hours, settings.retention_loads, settings.duckdb_memory_limit) == (36, 5, "1GB")


def test_the_default_warehouse_follows_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIINFRA_HOME", "elsewhere")
    assert load_settings().warehouse_address == DuckDBAddress(tmp_path / "elsewhere/warehouse.duckdb")


def test_a_clickhouse_address_is_taken_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIINFRA_WAREHOUSE", "clickhouses://metrics%40eu@ch.example")
    monkeypatch.setenv("OPTIINFRA_WAREHOUSE_PASSWORD", "pa55word")
    monkeypatch.setenv("OPTIINFRA_CLICKHOUSE_CLUSTER", "main")
    address = load_settings().warehouse_address
    assert isinstance(address, ClickHouseAddress)
    assert (address.host, address.port, address.user, address.secure) == ("ch.example", 8443, "metrics@eu", True)
    assert (address.password.get_secret_value(), address.cluster) == ("pa55word", "main")


def test_a_plain_clickhouse_address_has_the_http_port_and_the_default_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIINFRA_WAREHOUSE", "clickhouse://[::1]")
    address = load_settings().warehouse_address
    assert isinstance(address, ClickHouseAddress)
    assert (address.host, address.port, address.user, address.secure) == ("::1", 8123, "default", False)


@pytest.mark.parametrize(
    ("warehouse", "mistake"),
    [
        ("postgres://host", "must begin with duckdb:///"),
        ("duckdb:///", "must name a file"),
        ("duckdb:///:memory:", "must name a file"),
        ("duckdb:warehouse", "must name a file"),
        ("clickhouse://", "must name a host"),
        ("clickhouse://host:eighty", "must name a host, and a port by number"),
        ("clickhouse://host:99999", "Port out of range"),
        ("clickhouse://host:8123/default", "must end after the port"),
        ("clickhouse://me:pa55word@host", "put it into OPTIINFRA_WAREHOUSE_PASSWORD"),
    ],
)
def test_a_warehouse_that_cannot_be_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, warehouse: str, mistake: str
):
    monkeypatch.setenv("OPTIINFRA_WAREHOUSE", warehouse)
    with pytest.raises(SettingsError, match=mistake) as refused:
        load_settings()
    assert "OPTIINFRA_WAREHOUSE: " in str(refused.value)
    assert "pa55word" not in str(refused.value)


def test_all_mistakes_are_told_at_once_by_variable_name(monkeypatch: pytest.MonkeyPatch):
    wrong = {
        "WAREHOUSE": "oracle://x",
        "CLICKHOUSE_CLUSTER": "two words",
        "ALERT_URLS": "token-s3cr3t-without-scheme",
        "WEB_URL": "dagster.example",
        "FOCUS_MODEL": "absent.json",
        "FRESHNESS_HOURS": "0",
        "RETENTION_LOADS": "many",
        "DUCKDB_MEMORY_LIMIT": "lots",
        "DUCKDB_LOCK_TIMEOUT": "nan",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(f"OPTIINFRA_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    lines = str(refused.value).splitlines()[1:]
    assert {line.split(":")[0].strip() for line in lines} == {f"OPTIINFRA_{name}" for name in wrong}
    assert refused.value.kind == "not_configured"
    assert "s3cr3t" not in str(refused.value)


def test_alert_urls_are_parted_by_lines_and_by_commas_before_a_scheme(monkeypatch: pytest.MonkeyPatch):
    urls = "slack://a/b/c, mailto://u:p@mail.example?to=x@a.example,y@a.example\njson://127.0.0.1/hook\n"
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", urls)
    assert [url.get_secret_value() for url in load_settings().alert_urls] == [
        "slack://a/b/c",
        "mailto://u:p@mail.example?to=x@a.example,y@a.example",
        "json://127.0.0.1/hook",
    ]


def test_secrets_are_not_in_the_repr(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIINFRA_WAREHOUSE_PASSWORD", "pa55word")
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", "slack://s3cr3t/b/c")
    settings = load_settings()
    assert "pa55word" not in repr(settings) + str(settings.warehouse_address)
    assert "s3cr3t" not in repr(settings)


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().freshness_hours = 1  # type: ignore[misc]


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("OPTIINFRA_FRESHNESS_HOURS=12\nOPTIINFRA_RETENTION_LOADS=9\nACME_KEY=from-file\n")
    monkeypatch.setenv("OPTIINFRA_FRESHNESS_HOURS", "24")
    settings = load_settings()
    assert (settings.freshness_hours, settings.retention_loads) == (24, 9)
    assert secret("ACME_KEY", connection="acme/aws-main").get_secret_value() == "from-file"
    monkeypatch.setenv("ACME_KEY", "from-environment")
    assert secret("ACME_KEY", connection="acme/aws-main").get_secret_value() == "from-environment"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPTIINFRA_FOCUS_MODEL", "")
    monkeypatch.setenv("OPTIINFRA_FRESHNESS_HOURS", "")
    settings = load_settings()
    assert (settings.focus_model, settings.freshness_hours) == (None, 36)


@pytest.mark.parametrize("value", [None, ""])
def test_an_absent_credential_names_its_variable_and_connection(monkeypatch: pytest.MonkeyPatch, value: str | None):
    monkeypatch.delenv("ACME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ACME_KEY", value)
    with pytest.raises(CollectionError, match=r"acme/aws-main.*ACME_KEY") as absent:
        secret("ACME_KEY", connection="acme/aws-main")
    assert absent.value.kind == "not_configured"


def test_the_committed_env_example_is_what_the_settings_say():
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == env_example()


def test_the_env_example_changes_nothing_when_it_is_used_as_it_is(tmp_path: Path):
    defaults = load_settings()
    (tmp_path / ".env").write_text(env_example())
    assert load_settings() == defaults
    uncommented = re.findall(r"^# ([A-Z][A-Z_]+=.*)$", env_example(), re.MULTILINE)
    assert len(uncommented) == len(Settings.model_fields)
    (tmp_path / ".env").write_text("\n".join(uncommented))
    assert load_settings() == defaults


def test_help_names_every_variable_with_its_default_and_description(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert str(field.validation_alias or f"OPTIINFRA_{name.upper()}") in printed
        assert field.description
        assert field.description in printed
    assert "OPTIINFRA_DUCKDB_LOCK_TIMEOUT [120]" in printed


def test_the_module_prints_the_env_example_from_the_command_line():
    command = [sys.executable, "-m", "optiinfra_pipelines.settings", "--env-example"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == env_example()


def test_importing_the_settings_reads_no_environment():
    code = "import os\nos.environ['OPTIINFRA_FRESHNESS_HOURS'] = 'wrong'\nimport optiinfra_pipelines.settings"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == ""
