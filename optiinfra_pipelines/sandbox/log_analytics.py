"""The sandbox's Log Analytics workspaces: one a customer, with the tables that API Management and Azure OpenAI log to.

Answers queries of the plain form `Table | where ... | project ... | order by ... asc`. Who may ask is checked in
`azure_server.py`; what rows hold is in `interaction_wire.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

from optiinfra_pipelines.sandbox.interaction_wire import Record, azure_rows
from optiinfra_pipelines.sandbox.interactions import Corpus
from optiinfra_pipelines.windows import as_utc

MOST_ROWS = 500_000  # https://learn.microsoft.com/azure/azure-monitor/service-limits#log-analytics-workspaces

_TABLES: Mapping[str, Mapping[str, str]] = {
    "ApiManagementGatewayLlmLog": {
        "TimeGenerated": "datetime",
        **dict.fromkeys(("CorrelationId", "OperationName", "ApiVersion", "DeploymentName", "ModelName"), "string"),
        **dict.fromkeys(("Region", "RequestId"), "string"),
        "IsStreamCompletion": "bool",
        **dict.fromkeys(("PromptTokens", "CompletionTokens", "TotalTokens", "SequenceNumber"), "int"),
        **dict.fromkeys(("RequestMessages", "ResponseMessages"), "dynamic"),
    },
    "ApiManagementGatewayLogs": {
        "TimeGenerated": "datetime",
        **dict.fromkeys(("CorrelationId", "ApiId", "ApimSubscriptionId", "ProductId", "OperationId"), "string"),
        **dict.fromkeys(("Method", "Url", "Region"), "string"),
        "IsRequestSuccess": "bool",
        **dict.fromkeys(("ResponseCode", "BackendResponseCode"), "int"),
        **dict.fromkeys(("TotalTime", "BackendTime"), "long"),
        **dict.fromkeys(("RequestBody", "ResponseBody", "BackendRequestBody", "BackendResponseBody"), "string"),
        "TraceRecords": "dynamic",
    },
    "AzureDiagnostics": {
        "TimeGenerated": "datetime",
        **dict.fromkeys(("Category", "CorrelationId", "OperationName"), "string"),
        "DurationMs": "real",
        **dict.fromkeys(("ResultSignature", "ResourceProvider", "properties_s"), "string"),
    },
}
_PARTIAL = {
    "code": "PartialError",
    "message": "There were some errors when processing your query.",
    "details": [
        {
            "code": "EngineError",
            "message": "Something went wrong processing your query on the server.",
            "innererror": {
                "code": "-2133196797",
                "message": "The results of this query exceed the set limit of records, so not all were returned.",
                "severity": 2,
                "severityName": "Error",
            },
        }
    ],
}

Test = Callable[[Record], bool]


class BadQuery(Exception):
    """A query that Log Analytics would refuse; the text is its error of error codes and messages."""

    def __init__(self, code: str, inner: str, message: str) -> None:
        super().__init__(message)
        self.body = {
            "error": {
                "message": "The request had some invalid properties",
                "code": "BadArgumentError",
                "innererror": {"code": code, "message": f"{inner}: {message}"},
            }
        }


def workspace_id(customer_id: str) -> str:
    """The id of the customer's workspace."""
    return str(UUID(bytes=blake2b(f"workspace/{customer_id}".encode(), digest_size=16).digest(), version=4))


def workspace_answer(
    corpus: Corpus, customer_id: str, asked: Mapping[str, Any], now: datetime, most: int = MOST_ROWS
) -> dict[str, Any]:
    """The decoded answer to {"query": ..., "timespan": "start/end"}: rows of that span, both ends in it, that were
    there at `now`. Beyond `most` rows it is partial and says so; BadQuery for what cannot be answered."""
    table, tests, columns, limit = _parsed(asked["query"])
    start, end = _timespan(asked.get("timespan"), corpus)
    rows = [row for row in _rows(corpus, customer_id, table, start, end, now) if all(test(row) for test in tests)]
    rows = sorted(rows, key=lambda row: row["TimeGenerated"])[:limit]
    types = _TABLES[table]
    result = {
        "name": "PrimaryResult",
        "columns": [{"name": name, "type": types[name]} for name in columns],
        "rows": [[row[name] for name in columns] for row in rows[:most]],
    }
    return {"tables": [result]} | ({"error": _PARTIAL} if len(rows) > most else {})


def _rows(
    corpus: Corpus, customer_id: str, table: str, start: datetime, end: datetime, now: datetime
) -> Iterator[Record]:
    until = min(end, now)
    for planted in corpus.interactions(corpus.of(customer_id, "azure"), start, until + timedelta(microseconds=1)):
        if start <= planted.timestamp <= until and planted.delivered_at <= now:
            yield from (row for name, row in azure_rows(planted) if name == table)


def _timespan(written: str | None, corpus: Corpus) -> tuple[datetime, datetime]:
    if written is None:
        return corpus.start, corpus.end
    try:
        start, end = (as_utc(datetime.fromisoformat(each)) for each in written.split("/"))
    except ValueError:
        raise BadQuery("TimespanError", "BadArgument", f"the timespan {written} is not start/end") from None
    return start, end


def _parsed(query: str) -> tuple[str, Sequence[Test], Sequence[str], int | None]:
    """Table, conditions, columns and the most rows of a query; BadQuery where it is of another form."""
    table, *steps = (each.strip() for each in _split(query, "|"))
    if table not in _TABLES:
        message = f"'where' operator: Failed to resolve table or column expression named '{table}'"
        raise BadQuery("SemanticError", "SEM0100", message)
    types = _TABLES[table]
    tests: list[Test] = []
    columns: Sequence[str] = tuple(types)
    limit: int | None = None
    for step in steps:
        operator, _, rest = step.partition(" ")
        if operator == "where":
            tests += [_test(each.strip(), types) for each in _split(rest, " and ")]
        elif operator == "project":
            columns = [_column(each.strip(), types) for each in rest.split(",")]
        elif operator in ("take", "limit") and rest.strip().isdecimal():
            limit = int(rest)
        elif re.fullmatch(r"(?:order|sort) by TimeGenerated asc", step) is None:
            raise BadQuery("SyntaxError", "SYN0002", f"Query could not be parsed at '{operator}'")
    return table, tests, columns, limit


def _split(text: str, separator: str) -> list[str]:
    """`text` at the separators that stand outside of quotation marks."""
    parts = re.split(rf"({re.escape(separator)}|\"[^\"]*\")", text)
    found = [""]
    for part in parts:
        if part == separator:
            found.append("")
        else:
            found[-1] += part
    return found


def _column(name: str, types: Mapping[str, str]) -> str:
    if name not in types:
        message = f"'project' operator: Failed to resolve scalar expression named '{name}'"
        raise BadQuery("SemanticError", "SEM0100", message)
    return name


def _test(condition: str, types: Mapping[str, str]) -> Test:
    """One condition: a time compared, a text equal or not, or a column that is not empty."""
    if found := re.fullmatch(r"TimeGenerated\s*(>=|<=|>|<)\s*datetime\(([^)]+)\)", condition):
        return _time_test(found[1], as_utc(datetime.fromisoformat(found[2].strip("'\" "))))
    if found := re.fullmatch(r"(\w+)\s*(==|=~|!=)\s*\"([^\"]*)\"", condition):
        name, wanted, fold = _column(found[1], types), found[3], found[2] == "=~"
        equal = found[2] != "!="
        if fold:
            return lambda row: str(row[name]).lower() == wanted.lower()
        return lambda row: (row[name] == wanted) == equal
    if found := re.fullmatch(r"is(not)?empty\((\w+)\)", condition):
        name, empty = _column(found[2], types), found[1] is None
        return lambda row: (row[name] in (None, "")) == empty
    raise BadQuery("SyntaxError", "SYN0002", f"Query could not be parsed at '{condition}'")


def _time_test(operator: str, than: datetime) -> Test:
    compare: Mapping[str, Callable[[datetime], bool]] = {
        ">=": lambda at: at >= than,
        "<=": lambda at: at <= than,
        ">": lambda at: at > than,
        "<": lambda at: at < than,
    }
    return lambda row: compare[operator](datetime.fromisoformat(row["TimeGenerated"]))
