"""`customers.yaml`: which customers there are, the connections to their clouds, and the names (never the values) of
the environment variables that hold the credentials. What the file says becomes frozen models; a wrong file becomes
one error with every mistake and its line. Nothing here connects to anything."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator

from optiinfra_pipelines.applications import Application
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.customer_patterns import checked
from optiinfra_pipelines.places import (
    API_BILLS,
    AWS,
    AZURE,
    CREDENTIALS,
    FILES,
    LlmSource,
    Model,
    Place,
    Text,
    web_address,
)
from optiinfra_pipelines.refusals import hint, refuse_keys, variable_name
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS

ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
EXAMPLE = """\
customers:
  - id: acme
    name: Acme Robotics
    connections:
      - id: aws-main
        provider: aws
        accounts: ["111122223333"]
        collect: [billing]
        billing:
          location: s3://acme-billing/exports/acme-focus
          layout: aws_data_export
        credentials:
          access_key_id: ACME_AWS_ACCESS_KEY_ID
          secret_access_key: ACME_AWS_SECRET_ACCESS_KEY
"""

Item = TypeVar("Item")
Provider = Literal["aws", "gcp", "azure", "vultr", "focus"]
Collect = Literal["billing", "metrics", "inventory", "prices", "llm_interactions"]
_FROM_PLACES = ("billing", "llm_interactions")  # the rest comes from the provider's own APIs
Layout = Literal["aws_data_export", "aws_cur", "azure_export", "files"]

# What a provider's APIs need for metrics, inventory and prices.
API_CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "aws": (*AWS, "external_id"),
    "gcp": ("service_account_json",),
    "azure": AZURE,
    "vultr": ("api_key",),
    "focus": (),
}
_PROMETHEUS = ("prometheus_username", "prometheus_password", "prometheus_token")
_LAYOUT_PROVIDERS = {
    "aws_data_export": ("aws", "focus"),
    "aws_cur": ("aws", "focus"),
    "azure_export": ("azure", "focus"),
}
_SHOWN_KEY = re.compile(r"[A-Za-z_]{1,40}")  # a key that is not a plain word may be a secret in the wrong place
_FOCUS_NAMES = tuple(column.name for column in FOCUS_COLUMNS)


@dataclass(frozen=True)
class Mistake:
    """One mistake in `customers.yaml`: the line (from 1), the path inside the file, and what is wrong."""

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        return f"  line {self.line}: {f'{self.where}: ' if self.where else ''}{self.message}"


class CustomersFileError(CollectionError):
    """`customers.yaml` is absent or wrong. `mistakes` holds each mistake; none of them shows a credential."""

    mistakes: tuple[Mistake, ...] = ()

    @classmethod
    def of(cls, path: Path, mistakes: Sequence[Mistake]) -> "CustomersFileError":
        """The error for the file `path` with `mistakes`, in the order of their lines."""
        ordered = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        count = f"{len(ordered)} mistake{'s' if len(ordered) > 1 else ''}"
        error = cls("not_configured", "\n".join([f"{path} has {count}:", *map(str, ordered)]))
        error.mistakes = ordered
        return error


def _not_empty(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if not items:
        raise ValueError("must hold at least one entry")
    return items


Id = Annotated[str, Field(pattern=ID_PATTERN)]


class BillingSource(Place):
    """Where a connection's bills are and how they lie there.

    `location` is s3://bucket/prefix, gs://bucket/prefix, az://container/path, abfss://container@account.host/path or
    an absolute local path; or an API: cost-explorer://account, bigquery://project/dataset/table,
    cost-management://subscription, vultr://invoices. `defaults` are FOCUS columns to fill where the source lacks them.
    """

    schemes: ClassVar[tuple[str, ...]] = (*FILES, *API_BILLS)

    layout: Layout = "files"
    defaults: Mapping[str, str] = Field(default_factory=dict)

    @property
    def is_api(self) -> bool:
        """Whether an API tells the bill, and not files."""
        return self.scheme in API_BILLS

    @field_validator("defaults")
    @classmethod
    def _defaults_are_focus_columns(cls, defaults: Mapping[str, str]) -> Mapping[str, str]:
        unknown = [key for key in defaults if key not in _FOCUS_NAMES]
        refuse_keys(unknown, _FOCUS_NAMES, "is not a FOCUS column")
        return defaults


def _web_addresses(endpoints: Mapping[str, str]) -> Mapping[str, str]:
    return {service: web_address(url) for service, url in endpoints.items()}


class PrometheusSource(Model):
    """A Prometheus server that measures the connection's machines, by node, DCGM or vLLM exporters.

    `resource_label` is the label whose value (without a port) is the machine's id, name or IP address.
    """

    url: Annotated[str, AfterValidator(web_address)]
    resource_label: Text = "instance"


class Connection(Model):
    """One way into one customer's cloud. `accounts` (AWS accounts, GCP projects, Azure subscriptions) empty: every
    account that the location or the credentials show; `regions` empty: every region that is enabled.

    `assume_role` is an AWS role to take on in each account, {account} standing for its id. `endpoints` are base URLs
    by service, for private endpoints. `credentials` maps a field of `CREDENTIALS` or `API_CREDENTIALS` to the NAME of
    an environment variable; empty: the credentials that the machine has by itself.
    """

    id: Id
    accounts: tuple[Text, ...] = ()
    regions: tuple[Text, ...] = ()
    assume_role: Text | None = None
    endpoints: Annotated[Mapping[str, str], AfterValidator(_web_addresses)] = Field(default_factory=dict)
    prometheus: PrometheusSource | None = None
    collect: Annotated[tuple[Collect, ...], AfterValidator(_not_empty)]
    billing: BillingSource | None = Field(default=None, validate_default=True)
    llm: tuple[LlmSource, ...] = Field(default=(), validate_default=True)
    provider: Provider  # after billing and before credentials: each is checked against what stands above it
    credentials: Mapping[str, Annotated[str, AfterValidator(variable_name)]] = Field(default_factory=dict)

    @field_validator("billing")
    @classmethod
    def _billing_is_there(cls, billing: BillingSource | None, info: ValidationInfo) -> BillingSource | None:
        if billing is None and "billing" in info.data.get("collect", ()):
            raise ValueError("is required, because `collect` names billing: say where the bills are")
        return billing

    @field_validator("llm")
    @classmethod
    def _llm_is_there(cls, llm: tuple[LlmSource, ...], info: ValidationInfo) -> tuple[LlmSource, ...]:
        if not llm and "llm_interactions" in info.data.get("collect", ()):
            raise ValueError("is required, because `collect` names llm_interactions: say where they are logged")
        if len({each.location for each in llm}) < len(llm):
            raise ValueError("names one location twice; what is read twice would be counted twice")
        return llm

    @field_validator("provider")
    @classmethod
    def _provider_fits_the_layout(cls, provider: Provider, info: ValidationInfo) -> Provider:
        billing: BillingSource | None = info.data.get("billing")
        if billing and billing.is_api and provider != API_BILLS[billing.scheme]:
            raise ValueError(f"must be {API_BILLS[billing.scheme]} where the bill is at {billing.scheme}://")
        apis = [kind for kind in info.data.get("collect", ()) if kind != "billing"]
        if provider == "focus" and apis:
            raise ValueError(f"must be a cloud where `collect` names {', '.join(apis)}: focus stands for files only")
        providers = _LAYOUT_PROVIDERS.get(billing.layout, ()) if billing else ()
        if billing and providers and provider not in providers:
            raise ValueError(f"must be {' or '.join(providers)} where the layout is {billing.layout}")
        return provider

    @field_validator("credentials")
    @classmethod
    def _credentials_fit(cls, credentials: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        billing: BillingSource | None = info.data.get("billing")
        llm: tuple[LlmSource, ...] = info.data.get("llm", ())
        apis = any(kind not in _FROM_PLACES for kind in info.data.get("collect", ()))
        if billing is not None or llm or (apis and "provider" in info.data):
            allowed = CREDENTIALS[billing.scheme] if billing else ()
            allowed += tuple(name for each in llm for name in CREDENTIALS[each.scheme])
            allowed += API_CREDENTIALS[info.data.get("provider", "focus")] if apis else ()
            allowed += _PROMETHEUS if info.data.get("prometheus") else ()
            place = "this connection"
            if billing is not None and not apis and not llm:
                place = f"{billing.scheme}:// locations" if billing.scheme else "a local location"
            unknown = [key for key in credentials if key not in allowed]
            refuse_keys(unknown, tuple(dict.fromkeys(allowed)), f"is no credential for {place}")
        _check_pairs(credentials)
        return credentials


def _usable(patterns: Mapping[str, str]) -> Mapping[str, str]:
    checked(patterns, ())
    return patterns


class Customer(Model):
    """One customer and the connections to its clouds; connection ids are unique within the customer.

    `api_budget_usd` is what calls that a cloud charges for may cost a UTC day; absent: OPTIINFRA_API_BUDGET_USD.
    `redact` are regular expressions of what must not leave beside what is always redacted, by placeholder: EMPLOYEE
    stands in the text as [EMPLOYEE_1].
    """

    id: Id
    name: Text
    api_budget_usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    applications: tuple[Application, ...] = ()
    redact: Annotated[Mapping[str, str], AfterValidator(_usable)] = Field(default_factory=dict)
    connections: Annotated[tuple[Connection, ...], AfterValidator(_not_empty)]

    @field_validator("connections")
    @classmethod
    def _logs_are_read_once(cls, connections: tuple[Connection, ...]) -> tuple[Connection, ...]:
        places = [each.location for connection in connections for each in connection.llm]
        if len(set(places)) < len(places):
            raise ValueError("name one location under llm twice; what is read twice would be counted and judged twice")
        return connections

    def application(self, application_id: str) -> Application:
        """What customers.yaml says of an application; nothing but its id where it does not name it."""
        return next((each for each in self.applications if each.id == application_id), Application(id=application_id))


class Customers(Model):
    """Everything that `customers.yaml` says; customer ids are unique."""

    customers: Annotated[tuple[Customer, ...], AfterValidator(_not_empty)]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(customer.id for customer in self.customers)

    def customer(self, customer_id: str) -> Customer:
        """The customer with that id; CollectionError `not_configured` where there is none."""
        for customer in self.customers:
            if customer.id == customer_id:
                return customer
        raise CollectionError(
            "not_configured", f"customers.yaml has no customer {customer_id}; it has {', '.join(self.ids)}"
        )


def load_customers(path: Path) -> Customers:
    """Read and check the file `path`; CustomersFileError with every mistake and its line where it is absent or wrong.

    A local billing location is relative to the folder of `path`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CustomersFileError(
            "not_configured",
            f"{path} does not exist; write it (or set OPTIINFRA_CUSTOMERS to where it is), for example:\n\n{EXAMPLE}",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CustomersFileError("not_configured", f"{path} cannot be read as UTF-8 text: {error}") from error
    try:
        # every scalar is text to this loader: account 012345678901 keeps its zero, and NO is no boolean
        loader = yaml.BaseLoader(text)
        root = loader.get_single_node()
        content = loader.construct_document(root) if root else {}
    except yaml.YAMLError as error:
        raise CustomersFileError.of(path, [_syntax_mistake(error)]) from None
    mistakes = [*_repeated_keys(root), *_repeated_ids(root, content)]
    try:
        customers = Customers.model_validate(content, context={"folder": path.resolve().parent})
    except ValidationError as error:
        mistakes += [_mistake(root, details) for details in error.errors(include_input=False, include_url=False)]
        raise CustomersFileError.of(path, mistakes) from None
    if mistakes:
        raise CustomersFileError.of(path, mistakes)
    return customers


def _check_pairs(credentials: Mapping[str, str]) -> None:
    for field, partner in (
        ("access_key_id", "secret_access_key"),
        ("secret_access_key", "access_key_id"),
        ("session_token", "access_key_id"),
    ):
        if field in credentials and partner not in credentials:
            raise ValueError(f"{field} is of no use without {partner}")


def _syntax_mistake(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    # the parser quotes what it stumbled over; a single character helps, more of it may be a secret
    problem = re.sub(r"'[^']{3,}'", "(not shown)", str(problem))
    return Mistake(mark.line + 1 if mark else 1, "", f"not YAML: {problem}")


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node, yaml.Node]]:
    """Each child as (key or index, the node to point at, the child)."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, key, child) for key, child in node.value if isinstance(key, yaml.ScalarNode))
    elif isinstance(node, yaml.SequenceNode):
        yield from ((index, child, child) for index, child in enumerate(node.value))


def _line(root: yaml.Node | None, loc: Sequence[str | int]) -> int:
    """Line of the deepest node on the way to `loc` that the file has."""
    pointed = node = root
    for step in loc:
        found = [(pointer, child) for key, pointer, child in _children(node) if key == step] if node else []
        if not found:
            break
        pointed, node = found[-1]
    return pointed.start_mark.line + 1 if pointed else 1


def _where(loc: Sequence[str | int]) -> str:
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step + 1}]"
        else:
            path += f".{step if _SHOWN_KEY.fullmatch(step) else '(a key that is not shown)'}"
    return path.lstrip(".")


def _repeated_keys(root: yaml.Node | None) -> list[Mistake]:
    mistakes: list[Mistake] = []
    seen: set[int] = set()
    stack: list[tuple[yaml.Node, tuple[str | int, ...]]] = [(root, ())] if root else []
    while stack:
        node, loc = stack.pop()
        if id(node) in seen:  # an alias points at a node that was already walked
            continue
        seen.add(id(node))
        first: dict[str | int, int] = {}
        for key, pointer, child in _children(node):
            line = pointer.start_mark.line + 1
            if key in first:
                mistakes.append(Mistake(line, _where((*loc, key)), f"stands here twice, first on line {first[key]}"))
            first.setdefault(key, line)
            stack.append((child, (*loc, key)))
    return mistakes


def _repeated_ids(root: yaml.Node | None, content: Any) -> Iterator[Mistake]:
    customers = _items(content, "customers")
    yield from _repeated(root, ("customers",), customers)
    for index, customer in enumerate(customers):
        yield from _repeated(root, ("customers", index, "connections"), _items(customer, "connections"))


def _items(value: Any, key: str) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


def _repeated(root: yaml.Node | None, loc: tuple[str | int, ...], items: list[Any]) -> Iterator[Mistake]:
    lines: dict[str, int] = {}
    for index, item in enumerate(items):
        own = item.get("id") if isinstance(item, dict) else None
        if not isinstance(own, str):
            continue
        place = (*loc, index, "id")
        line = _line(root, place)
        if own in lines:
            yield Mistake(line, _where(place), f"is the id of another one too, on line {lines[own]}; ids are unique")
        lines.setdefault(own, line)


def _mistake(root: yaml.Node | None, details: Any) -> Mistake:
    loc = tuple(details["loc"])
    return Mistake(_line(root, loc), _where(loc), _message(details))


def _message(details: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"is not known here{hint(str(details['loc'][-1]), _known_keys(details['loc']))}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in ("missing", "string_too_short"):
        return "is required"
    if kind == "string_pattern_mismatch":
        return "must be 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"
    if kind in ("model_type", "mapping_type", "model_attributes_type", "dict_type"):
        return "must be a mapping (lines of `key: value`)"
    if kind in ("tuple_type", "list_type"):
        return "must be a list"
    if kind == "string_type":
        return "must be text"
    return str(details["msg"]).removeprefix("Value error, ")


def _known_keys(loc: Sequence[str | int]) -> tuple[str, ...]:
    below: dict[str, type[BaseModel]] = {
        "customers": Customer,
        "connections": Connection,
        "billing": BillingSource,
        "prometheus": PrometheusSource,
    }
    model: type[BaseModel] = Customers
    for step in loc[:-1]:
        model = below.get(str(step), model)
    return tuple(model.model_fields)
