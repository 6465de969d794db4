import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from optiinfra_pipelines.customers import EXAMPLE, ID_PATTERN, Customer, CustomersFileError, load_customers
from optiinfra_pipelines.errors import CollectionError

SECRET = "wJalrXUtnFEMI/K7MDENG"
SECRET_KEY_ID = "AKIAIOSFODNN7EXAMPLE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "customers.yaml"


def refused(file: Path, text: str) -> CustomersFileError:
    file.write_text(text)
    with pytest.raises(CustomersFileError) as error:
        load_customers(file)
    assert SECRET not in str(error.value)
    assert SECRET_KEY_ID not in str(error.value)
    return error.value


def one_connection(billing: str, credentials: str = "{}", provider: str = "aws") -> str:
    return f"""\
customers:
  - id: acme
    name: Acme Robotics
    connections:
      - id: main
        provider: {provider}
        collect: [billing]
        billing: {billing}
        credentials: {credentials}
"""


def test_a_customer_is_what_the_file_says(file: Path):
    file.write_text("""\
customers:
  - id: acme
    name: Acme Robotics
    connections:
      - id: aws-main
        provider: aws
        accounts: ["111122223333", 012345678901]
        collect: [billing]
        billing:
          location: S3://acme-billing/exports/acme-focus/
          layout: aws_data_export
          endpoint_url: http://127.0.0.1:9000/
          region: us-east-1
          defaults: {BillingCurrency: USD, ChargeClass: NO}
        credentials:
          access_key_id: ACME_AWS_ACCESS_KEY_ID
          secret_access_key: ACME_AWS_SECRET_ACCESS_KEY
""")
    customers = load_customers(file)
    assert customers.ids == ("acme",)
    (connection,) = customers.customer("acme").connections
    assert (connection.id, connection.provider, connection.collect) == ("aws-main", "aws", ("billing",))
    assert connection.accounts == ("111122223333", "012345678901")
    assert connection.credentials == {
        "access_key_id": "ACME_AWS_ACCESS_KEY_ID",
        "secret_access_key": "ACME_AWS_SECRET_ACCESS_KEY",
    }
    billing = connection.billing
    assert billing is not None
    assert (billing.location, billing.scheme) == ("s3://acme-billing/exports/acme-focus", "s3")
    assert (billing.layout, billing.region) == ("aws_data_export", "us-east-1")
    assert billing.endpoint_url == "http://127.0.0.1:9000"
    assert billing.defaults == {"BillingCurrency": "USD", "ChargeClass": "NO"}


def test_the_example_that_errors_show_is_valid(file: Path):
    file.write_text(EXAMPLE)
    assert load_customers(file).ids == ("acme",)


def test_a_local_location_is_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    file.write_text(one_connection("{location: bills/focus}", provider="focus"))
    (connection,) = load_customers(file).customer("acme").connections
    assert connection.billing is not None
    assert connection.billing.location == str(file.parent / "bills/focus")
    assert (connection.billing.scheme, connection.billing.layout) == ("", "files")


@pytest.mark.parametrize(
    ("location", "credentials"),
    [
        ("s3://b/p", "{}"),
        ("s3://b/p", "{access_key_id: A, secret_access_key: B, session_token: C, role_arn: D}"),
        ("gs://b", "{service_account_json: A}"),
        ("az://container/path", "{account_name: A, account_key: B}"),
        ("az://container/path", "{connection_string: A}"),
        ("abfss://container@account.dfs.core.windows.net/p", "{sas_token: A}"),
    ],
)
def test_each_kind_of_location_has_its_own_credentials(file: Path, location: str, credentials: str):
    file.write_text(one_connection(f"{{location: '{location}'}}", credentials, provider="focus"))
    (connection,) = load_customers(file).customer("acme").connections
    assert set(connection.credentials) == set(re.findall(r"(\w+):", credentials))


def test_every_mistake_is_told_at_once_with_its_line(file: Path):
    error = refused(
        file,
        f"""\
customers:
  - id: Acme
    nme: Acme Robotics
    connections:
      - id: aws-main
        provider: amazon
        collect: [billing, invoices]
        billing:
          location: ftp://acme-billing
          layout: csv
          defaults:
            BilingCurrency: USD
        credentials:
          access_key_id: {SECRET_KEY_ID}
          secret_access_key: {SECRET}
      - id: aws-main
        provider: gcp
        collect: [billing]
        billing: {{location: gs://bucket, layout: aws_cur}}
        credentials: {{service_account: A}}
  - just text
""",
    )
    assert error.kind == "not_configured"
    assert [(mistake.line, mistake.where) for mistake in error.mistakes] == [
        (2, "customers[1].id"),
        (2, "customers[1].name"),
        (3, "customers[1].nme"),
        (6, "customers[1].connections[1].provider"),
        (7, "customers[1].connections[1].collect[2]"),
        (9, "customers[1].connections[1].billing.location"),
        (10, "customers[1].connections[1].billing.layout"),
        (12, "customers[1].connections[1].billing.defaults.BilingCurrency"),
        (14, "customers[1].connections[1].credentials.access_key_id"),
        (15, "customers[1].connections[1].credentials.secret_access_key"),
        (16, "customers[1].connections[2].id"),
        (17, "customers[1].connections[2].provider"),
        (20, "customers[1].connections[2].credentials.service_account"),
        (21, "customers[2]"),
    ]
    text = str(error)
    assert f"{file} has 14 mistakes:" in text
    assert "is not known here; did you mean name?" in text
    assert "is not a FOCUS column; did you mean BillingCurrency?" in text
    assert "did you mean service_account_json?" in text
    assert "on line 5; ids are unique" in text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("customers:\n  - id: acme\n   name: x\n", 3, "not YAML"),
        ("customers:\n  - id: [acme\n", 3, "not YAML"),
        (f"customers:\n  - id: *{SECRET.replace('/', '')}\n", 2, "undefined alias (not shown)"),
        ("customers: &all [*all]\n", 1, "not YAML: found unconstructable recursive node"),
        ("customers: \x01\n", 1, "not YAML: special characters are not allowed"),
        ("", 1, "customers: is required"),
        ("- acme\n", 1, "must be a mapping"),
        ("customers: []\n", 1, "must hold at least one entry"),
        ("customers:\n  acme: {}\n", 1, "must be a list"),
        (
            "customers:\n  - id: a\n    name: n\n    id: b\n    connections: []\n",
            4,
            "stands here twice, first on line 2",
        ),
    ],
)
def test_a_file_of_the_wrong_form_is_refused_with_the_line(file: Path, text: str, line: int, words: str):
    error = refused(file, text)
    assert any(mistake.line == line and words in str(mistake) for mistake in error.mistakes)


@pytest.mark.parametrize(
    ("billing", "credentials", "words"),
    [
        (f"{{location: 'az://c/p?sv=1&sig={SECRET}'}}", "{}", "keys and tokens are named under `credentials`"),
        (f"{{location: 's3://{SECRET_KEY_ID}:{SECRET}@bucket'}}", "{}", "keys and tokens are named under"),
        ("{location: 's3:///path'}", "{}", "names no bucket"),
        ("{location: 'abfss://account.dfs.core.windows.net/p'}", "{}", "names no container@account"),
        ("{location: s3://b, endpoint_url: minio:9000}", "{}", "must be an http:// or https:// address"),
        ("{location: bills, endpoint_url: http://x}", "{}", "has no meaning for a local location"),
        ("{location: s3://b, layout: azure_export}", "{}", "must be azure or focus where the layout is azure_export"),
        ("{location: s3://b}", "{access_key_id: A}", "access_key_id is of no use without secret_access_key"),
        ("{location: s3://b}", "{session_token: A}", "session_token is of no use without access_key_id"),
        ("{location: bills}", "{access_key_id: A}", "is no credential for a local location"),
        ("{location: s3://b}", f"{{{SECRET}: A}}", "(a key that is not shown): is no credential"),
        ("", "{}", "billing: must be a mapping"),
    ],
)
def test_a_connection_that_cannot_work_is_refused(file: Path, billing: str, credentials: str, words: str):
    assert words in str(refused(file, one_connection(billing, credentials)))


def test_collecting_bills_needs_to_say_where_they_are(file: Path):
    text = one_connection("{location: s3://b}").replace("        billing: {location: s3://b}\n", "")
    assert "billing: is required, because `collect` names billing" in str(refused(file, text))


@pytest.mark.parametrize("value", [SECRET, SECRET_KEY_ID, "acme_key", "ACME-KEY", "1KEY", "KEY\\n", "''"])
def test_a_credential_in_place_of_a_variable_name_is_refused_and_never_shown(file: Path, value: str):
    error = refused(file, one_connection("{location: gs://b}", f'{{service_account_json: "{value}"}}'))
    (mistake,) = error.mistakes
    assert mistake.where.endswith("credentials.service_account_json")
    assert "never the value itself" in mistake.message
    assert error.__cause__ is None


def test_an_absent_file_says_how_to_make_one(file: Path):
    with pytest.raises(CustomersFileError) as error:
        load_customers(file)
    assert str(file) in str(error.value)
    assert "OPTIINFRA_CUSTOMERS" in str(error.value)
    assert EXAMPLE in str(error.value)


def test_a_folder_or_bytes_that_are_no_text_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(CustomersFileError, match="cannot be read"):
        load_customers(tmp_path)
    file.write_bytes(b"customers: \xff")
    with pytest.raises(CustomersFileError, match="cannot be read as UTF-8"):
        load_customers(file)


def test_a_customer_that_the_file_does_not_name_is_an_error_that_lists_those_it_does(file: Path):
    file.write_text(EXAMPLE)
    with pytest.raises(CollectionError, match="no customer globex; it has acme"):
        load_customers(file).customer("globex")


CONNECTION = yaml.safe_load(EXAMPLE)["customers"][0]["connections"][0]


@given(id=st.from_regex(ID_PATTERN.removesuffix("$") + r"\Z"))
def test_every_id_of_the_pattern_is_accepted(id: str):
    assert Customer.model_validate({"id": id, "name": "n", "connections": [CONNECTION]}).id == id


@given(id=st.text(max_size=70).filter(lambda text: not re.fullmatch(ID_PATTERN.strip("^$"), text)))
def test_every_other_id_is_refused(id: str):
    with pytest.raises(ValidationError):
        Customer.model_validate({"id": id, "name": "n", "connections": [CONNECTION]})


@given(ids=st.lists(st.sampled_from(["acme", "globex", "initech"]), min_size=1, max_size=6))
def test_customer_ids_are_unique(tmp_path_factory: pytest.TempPathFactory, ids: list[str]):
    file = tmp_path_factory.mktemp("ids") / "customers.yaml"
    file.write_text(yaml.safe_dump({"customers": [{"id": i, "name": "n", "connections": [CONNECTION]} for i in ids]}))
    if len(set(ids)) == len(ids):
        assert load_customers(file).ids == tuple(ids)
    else:
        with pytest.raises(CustomersFileError) as error:
            load_customers(file)
        assert len(error.value.mistakes) == len(ids) - len(set(ids))
