"""One connection's way into AWS: credentials, roles, clients, retries, the account of requests, paging.

What is asked and when is in `collector.py`; nothing here knows what an answer means.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from threading import Lock
from typing import Any

import tenacity

from optiinfra_pipelines.clouds.aws.vocabulary import AUTH_CODES, CLOCK_CODES, EXPIRED_CODES, THROTTLED_CODES
from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.rest import RetryLater, pages, wait_as_asked
from optiinfra_pipelines.errors import CollectionError, ErrorKind

HOME_REGION = "us-east-1"
THREADS = 8
# List prices: https://aws.amazon.com/cloudwatch/pricing/ ("GetMetricData: $0.01 per 1,000 metrics requested") and
# https://aws.amazon.com/aws-cost-management/aws-cost-explorer/pricing/ ("$0.01 per paginated API request").
METRIC_PRICE = Decimal("0.00001")
COST_EXPLORER_PRICE = Decimal("0.01")
# Names of the cursor in the answer and in the next request.
_CURSORS: Mapping[str, tuple[str, str]] = {
    "rds": ("Marker", "Marker"),
    "lambda": ("NextMarker", "Marker"),
    "ce": ("NextPageToken", "NextPageToken"),
    "resourcegroupstaggingapi": ("PaginationToken", "PaginationToken"),
}
_UNITS = "optiinfra_units"


@dataclass(frozen=True, repr=False)
class Keys:
    """What signs requests. Never shown."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


class Account:
    """One AWS account; safe across threads. `renew` gives new keys where they are those of a role.

    Methods raise CollectionError: auth, throttled, transient, malformed, not_configured, budget.
    """

    def __init__(
        self, source: Source, account_id: str, keys: Keys | None, renew: Callable[[], Keys] | None = None
    ) -> None:
        self.source = source
        self.account_id = account_id
        self._keys = keys
        self._renew = renew
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = Lock()

    def ask(self, service: str, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The decoded answer, without ResponseMetadata; retried as often as the source allows."""
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryLater),
            stop=tenacity.stop_after_attempt(self.source.attempts),
            wait=wait_as_asked,
            reraise=True,
        )
        try:
            return again(self._once, service, region, operation, parameters)
        except RetryLater as last:
            raise last.error from last

    def pages(self, service: str, region: str, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every page; CollectionError (malformed) where the service repeats itself."""
        said, asked = _CURSORS.get(service, ("NextToken", "NextToken"))

        def fetch(cursor: str | None) -> dict[str, Any]:
            more = {asked: cursor} if cursor else {}
            return self.ask(service, region, operation, **parameters, **more)

        return pages(fetch, lambda page: page.get(said), self._named(service, region, operation))

    def _once(
        self, service: str, region: str, operation: str, parameters: Mapping[str, Any], may_renew: bool = True
    ) -> dict[str, Any]:
        from botocore import xform_name
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            ResponseStreamingError,
        )
        from botocore.parsers import ResponseParserError

        client, keys = self._client(service, region)
        try:
            answer = getattr(client, xform_name(operation))(**parameters)
        except ClientError as error:
            expired = error.response.get("Error", {}).get("Code") in EXPIRED_CODES
            if expired and may_renew and self._renewed(keys):
                return self._once(service, region, operation, parameters, may_renew=False)
            raise self._refusal(service, region, operation, error) from None
        except (ResponseParserError, ResponseStreamingError) as error:  # botocore does not retry half an answer
            # its text is the answer, which may be a role's keys
            what = f"{self._named(service, region, operation)}: the answer is not whole ({type(error).__name__})"
            raise RetryLater(CollectionError("malformed", what)) from None
        except (HTTPClientError, ConnectionError) as error:
            what = f"{self._named(service, region, operation)}: {_told(error)}; the next run tries again"
            raise CollectionError("transient", what) from None
        except BotoCoreError as error:
            advice = "check the connection's credentials, regions and endpoints"
            raise CollectionError(
                "not_configured", f"{self._named(service, region, operation)}: {_told(error)}; {advice}"
            ) from None
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    def _refusal(self, service: str, region: str, operation: str, error: Any) -> CollectionError:
        said = error.response.get("Error", {})
        code, message = str(said.get("Code", "")), str(said.get("Message", ""))[:300]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind: ErrorKind
        if code in THROTTLED_CODES or status == 429:
            kind, advice = "throttled", "the next run tries again"
        elif code in CLOCK_CODES:
            kind, advice = "auth", "check the secret key and that this machine's clock is right"
        elif code in AUTH_CODES or status in (401, 403):
            kind, advice = "auth", "check the credentials, that they may read this, and that the region is enabled"
        elif status >= 500:
            kind, advice = "transient", "the next run tries again"
        else:
            kind, advice = "malformed", "the request or its answer is not what the service's model says"
        return CollectionError(kind, f"{self._named(service, region, operation)}: {code} {message}; {advice}")

    def _named(self, service: str, region: str, operation: str) -> str:
        return f"{self.source.name}: {service} {operation} in {region} of account {self.account_id or 'of the keys'}"

    def _renewed(self, used: Keys | None) -> bool:
        """Whether there are other keys now than the `used` ones, which have expired."""
        if self._renew is None:
            return False
        with self._lock:
            if self._keys is used:
                self._keys = self._renew()
                self._clients.clear()
            return True

    def _client(self, service: str, region: str) -> tuple[Any, Keys | None]:
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._opened(service, region)
            return self._clients[service, region], self._keys

    def _opened(self, service: str, region: str) -> Any:
        from botocore.config import Config

        keys = self._keys
        endpoints = self.source.connection.endpoints
        config = Config(
            connect_timeout=self.source.timeout,
            read_timeout=self.source.timeout,
            retries={"mode": "standard", "total_max_attempts": self.source.attempts},
            max_pool_connections=THREADS,
        )
        with _ONE_AT_A_TIME:
            client = _session().client(
                service,
                region_name=region,
                endpoint_url=endpoints.get(service, endpoints.get("aws")),
                aws_access_key_id=keys and keys.access_key_id,
                aws_secret_access_key=keys and keys.secret_access_key,
                aws_session_token=keys and keys.session_token,
                config=config,
            )

        def count(request: Any, operation_name: str, **_: Any) -> None:
            units = int(request.context.get(_UNITS, 0))
            price = COST_EXPLORER_PRICE if service == "ce" else METRIC_PRICE * units
            self.source.calls.add(service, operation_name, units, price)

        def note_units(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
            context[_UNITS] = len(params.get("MetricDataQueries", ()))

        # an event of every attempt, before it is sent: what raises there stops it
        client.meta.events.register_first("request-created", count)
        client.meta.events.register("before-parameter-build", note_units)
        return client


def open_accounts(source: Source, findings: Findings) -> list[Account]:
    """The accounts of the connection; one whose role cannot be taken on is a failure among `findings`.

    CollectionError: auth where no account can be entered, not_configured where accounts, assume_role and credentials
    do not belong together.
    """
    connection = source.connection
    if connection.assume_role is None:
        own = _base(source)
        if set(connection.accounts) - {own.account_id}:
            raise CollectionError(
                "not_configured",
                f"{source.name} names accounts {', '.join(connection.accounts)} and its credentials are of account"
                f" {own.account_id}; set assume_role, or name that account alone",
            )
        return [own]
    named = {each: _role_in(source, each) for each in connection.accounts}
    base = _base(source)
    opened = []
    for account_id, role in (named or _only_role(base, connection.assume_role)).items():
        with findings.part():
            opened.append(_assumed(base, account_id, role))
    if not opened:
        raise findings.failures.pop()
    return opened


def regions(account: Account) -> list[str]:
    """The connection's regions, else those that are enabled in the account."""
    named = account.source.connection.regions
    if named:
        return list(named)
    answer = account.ask("ec2", HOME_REGION, "DescribeRegions")
    return sorted(region["RegionName"] for region in answer["Regions"])


def _base(source: Source) -> Account:
    """The account that the credentials belong to, or the role among the credentials."""
    key_id, secret = source.secret("access_key_id"), source.secret("secret_access_key")
    keys = Keys(key_id, secret, source.secret("session_token")) if key_id and secret else None
    account = Account(source, "", keys)
    role = source.secret("role_arn")
    if role:
        account = _assumed(account, _account_of(role), role)
    return account if account.account_id or source.connection.assume_role else _identity(account)


def _role_in(source: Source, account_id: str) -> str:
    """The connection's assume_role in one of its accounts; CollectionError (not_configured) where it is none there."""
    written = source.connection.assume_role or ""
    role = written.replace("{account}", account_id)
    if "{" in role or "}" in role:
        why = "may hold {account} and no other placeholder"
    elif "{account}" not in written and len(set(source.connection.accounts)) > 1:
        why = "is one role for several accounts; write {account} where the account's id stands in it"
    elif _account_of(role) not in ("", account_id):
        why = f"is a role of another account than {account_id}, which `accounts` names"
    else:
        return role
    raise CollectionError("not_configured", f"{source.name}: assume_role {written} {why}")


def _only_role(base: Account, written: str) -> dict[str, str]:
    """The role by its account where the connection names no account: in its own, else in that of the credentials."""
    account_id = "" if "{" in _account_of(written) else _account_of(written)
    account_id = account_id or _identity(base).account_id
    return {account_id: _role_in(base.source, account_id)}


def _account_of(role: str) -> str:
    """The account in a role's ARN (arn:aws:iam::account:role/name); empty where it is not written as one."""
    return role.split(":")[4] if role.count(":") >= 5 else ""


def _identity(account: Account) -> Account:
    account.account_id = account.ask("sts", _sts_region(account.source), "GetCallerIdentity")["Account"]
    return account


def _assumed(base: Account, account_id: str, role: str) -> Account:
    source = base.source

    def keys() -> Keys:
        external = source.secret("external_id")
        more = {"ExternalId": external} if external else {}
        answer = base.ask(
            "sts", _sts_region(source), "AssumeRole", RoleArn=role, RoleSessionName="optiinfra-pipelines", **more
        )
        said = answer["Credentials"]
        return Keys(said["AccessKeyId"], said["SecretAccessKey"], said["SessionToken"])

    return Account(source, account_id, keys(), keys)


def _sts_region(source: Source) -> str:
    return source.connection.regions[0] if source.connection.regions else HOME_REGION


def _told(error: Exception) -> str:
    """What the error says; its kind alone where it tells of a header, for those hold credentials."""
    return type(error).__name__ if "header" in str(error).lower() else str(error)


def _moment(written: Any) -> datetime:
    """A timestamp of an answer. botocore's own reader gives numbers the machine's zone, at ten times the cost."""
    from botocore.utils import parse_timestamp

    return datetime.fromtimestamp(written, UTC) if isinstance(written, float | int) else parse_timestamp(written)


_ONE_AT_A_TIME = Lock()  # a session is not safe across threads while it makes a client; clients are


@cache
def _session() -> Any:
    """The process's session: reading EC2's service model takes a tenth of a second. Its credentials are the machine's
    own, and stand for connections that name none."""
    import boto3
    import botocore.session

    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return boto3.Session(botocore_session=session)
