"""Each check function of a FOCUS model: what passes and what fails it, on both engines."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.tables.rule import And, AtLeast, Expr, HasFormat, Implies, Is, IsNot, Or, Rule, Undecidable
from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines_tests.clouds.focus.rule_models import check, model, rule
from optiinfra_pipelines_tests.clouds.focus.rule_tables import ALL_COLUMNS, ENGINES, bill

VALUE = {"CheckFunction": "CheckValue", "ColumnName": "ChargeClass", "Value": "Correction"}
USD = {"CheckFunction": "CheckValue", "ColumnName": "BillingCurrency", "Value": "USD"}

# check, a row that keeps it, a row that breaks it
PRODUCT = {"ColumnAName": "ListUnitPrice", "ColumnBName": "PricingQuantity", "ResultColumnName": "ListCost"}
SKUS = {"ColumnAName": "SkuId", "ColumnBName": "SkuPriceId"}
AT_0 = "2026-10-01T03:00:00+02:00"
ROW_CHECKS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (check("AND", Items=[USD, VALUE]), {"ChargeClass": "Correction"}, {"ChargeClass": "Refund"}),
    (check("OR", Items=[USD, VALUE]), {"ChargeClass": "x"}, {"ChargeClass": "x", "BillingCurrency": "EUR"}),
    (check("CheckValue", ColumnName="Tags", Value=None), {"Tags": None}, {"Tags": "{}"}),
    (check("CheckValue", ColumnName="ListCost", Value=0), {"ListCost": Decimal(0)}, {"ListCost": Decimal(1)}),
    (check("CheckValue", ColumnName="ChargeClass", Value="it's"), {"ChargeClass": "it's"}, {"ChargeClass": "its"}),
    (check("CheckValue", ColumnName="ChargeClass", Value="a\\b"), {"ChargeClass": "a\\b"}, {"ChargeClass": "ab"}),
    (check("CheckValue", ColumnName="ChargePeriodEnd", Value=AT_0), {}, {"ChargePeriodEnd": datetime(2026, 10, 2)}),
    (check("CheckNotValue", ColumnName="Tags", Value=None), {"Tags": "{}"}, {"Tags": None}),
    (check("CheckNotValue", ColumnName="ChargeClass", Value="x"), {"ChargeClass": None}, {"ChargeClass": "x"}),
    (check("CheckSameValue", **SKUS), {"SkuPriceId": "SKU1"}, {}),
    (check("CheckNotSameValue", **SKUS), {}, {"SkuPriceId": "SKU1"}),
    (check("CheckGreaterOrEqualThanValue", ColumnName="ListCost", Value=0.2), {}, {"ListCost": Decimal("0.19")}),
    (check("ColumnByColumnEqualsColumnValue", **PRODUCT), {}, {"PricingQuantity": Decimal(2)}),
    (check("CheckDecimalValue", ColumnName="BilledCost"), {}, {}),
    (check("CheckNationalCurrency", ColumnName="BillingCurrency"), {}, {"BillingCurrency": "USX"}),
    (check("TypeDecimal", ColumnName="BilledCost"), {}, {}),
    (check("TypeDecimal", ColumnName="Tags"), {"Tags": None}, {"Tags": "1"}),
    (check("TypeString", ColumnName="SkuId"), {}, {}),
    (check("TypeString", ColumnName="ListCost"), {"ListCost": None}, {"ListCost": Decimal(1)}),
    (check("TypeDateTime", ColumnName="ChargePeriodEnd"), {}, {}),
    (check("TypeDateTime", ColumnName="SkuId"), {"SkuId": None}, {"SkuId": "x"}),
    (check("FormatDateTime", ColumnName="SkuId"), {"SkuId": "2026-10-01T00:00:00Z"}, {"SkuId": "2026-10-01 00:00:00"}),
    (check("FormatNumeric", ColumnName="SkuId"), {"SkuId": "-1.5e-7"}, {"SkuId": "+1"}),
    (check("FormatString", ColumnName="SkuId"), {"SkuId": "日本"}, {"SkuId": "\ufffd"}),
    (check("FormatUnit", ColumnName="SkuId"), {"SkuId": "Units/3 Months"}, {"SkuId": "GB-Hour"}),
    (check("FormatUnit", ColumnName="SkuId"), {"SkuId": "GB/Hour"}, {"SkuId": "%"}),
    (check("FormatCurrency", ColumnName="SkuId"), {"SkuId": "Tokens"}, {"SkuId": "Usd"}),
    (check("FormatKeyValue", ColumnName="Tags"), {"Tags": ' {"a" : -1.5e3,"b":null} '}, {"Tags": '{"a": 1,}'}),
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_each_check_on_rows_passes_what_keeps_it_and_fails_what_breaks_it(engine: Engine) -> None:
    rules = model({f"r{i}": rule("SkuId", requirement) for i, (requirement, _, _) in enumerate(ROW_CHECKS)})
    kept = [{**keeps, "x_provider": f"keeps {i}"} for i, (_, keeps, _) in enumerate(ROW_CHECKS)]
    broke = [{**breaks, "x_provider": f"breaks {i}"} for i, (_, _, breaks) in enumerate(ROW_CHECKS)]
    results = bill(engine, *kept, *broke).judge(rules, {})
    found = {(result.rule.id, result.provider): result.status for result in results}
    for i, (requirement, keeps, breaks) in enumerate(ROW_CHECKS):
        assert found[f"r{i}", f"keeps {i}"] == "pass", requirement
        assert found[f"r{i}", f"breaks {i}"] == ("pass" if keeps == breaks else "fail"), requirement


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("requirement", "_keeps", "_breaks"), ROW_CHECKS)
def test_a_null_breaks_no_check_but_those_for_null(
    engine: Engine, requirement: dict[str, Any], _keeps: dict[str, Any], _breaks: dict[str, Any]
) -> None:
    nulls = dict.fromkeys(("ChargeClass", "EffectiveCost", "ListCost", "ListUnitPrice", "SkuId", "SkuPriceId", "Tags"))
    (result,) = bill(engine, nulls).judge(model({"r": rule("SkuId", requirement)}))
    wants_value = requirement == check("CheckNotValue", ColumnName="Tags", Value=None)
    assert (result.status, result.rows_failed) == (("fail", 1) if wants_value else ("pass", 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_presence_is_what_the_source_delivered(engine: Engine) -> None:
    rules = model({"r": rule("Tags", check("ColumnPresent", ColumnName="Tags"))})
    for columns, status in ((ALL_COLUMNS, "pass"), (ALL_COLUMNS - {"Tags"}, "fail")):
        (result,) = bill(engine, {}, {}).judge(rules, {"aws": columns})
        assert (result.status, result.rows_checked) == (status, 2)
    (result,) = bill(engine, {}).judge(rules, {})
    assert (result.status, result.reason) == ("not_applicable", "the columns of the source of aws are not known")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_distinct_count_fails_with_all_rows_of_the_groups_that_break_it(engine: Engine) -> None:
    count = check("CheckDistinctCount", ColumnAName="ServiceName", ColumnBName="ServiceCategory", ExpectedCount=1)
    rows = [("S3", "Storage"), ("S3", "Other"), ("S3", "Storage"), ("EC2", "Compute"), ("KMS", None), (None, None)]
    table = bill(engine, *({"ServiceName": name, "ServiceCategory": category} for name, category in rows))
    (result,) = table.judge(model({"r": rule("ServiceName", count)}))
    assert (result.status, result.rows_checked, result.rows_failed) == ("fail", 5, 4)
    assert result.example == {"ServiceName": "KMS", "ServiceCategory": "", "another ServiceCategory": "", "distinct": 0}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_distinct_count_leaves_out_rows_that_do_not_meet_its_condition(engine: Engine) -> None:
    count = check("CheckDistinctCount", ColumnAName="ServiceName", ColumnBName="ServiceCategory", ExpectedCount=1)
    rules = model({"r": rule("ServiceName", count, condition=USD)})
    (result,) = bill(engine, {}, {"ServiceCategory": "Other", "BillingCurrency": "EUR"}).judge(rules)
    assert (result.status, result.rows_checked) == ("pass", 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_products_agree_to_the_digits_that_bills_print_and_no_further(engine: Engine) -> None:
    product = check(
        "ColumnByColumnEqualsColumnValue",
        ColumnAName="ListUnitPrice",
        ColumnBName="PricingQuantity",
        ResultColumnName="ListCost",
    )
    rules = model({"r": rule("ListCost", product)})

    def status(price: str, quantity: str, cost: str) -> str:
        row = {"ListUnitPrice": Decimal(price), "PricingQuantity": Decimal(quantity), "ListCost": Decimal(cost)}
        return bill(engine, row).judge(rules)[0].status

    assert status("0.008", "0.00200749", "0.0000160599") == "pass"  # AWS rounds to ten decimals
    assert status("0.008", "0.00200749", "0.0000160601") == "fail"
    assert status("0.000015", "20", "0.0003") == "pass"
    assert status("12345.678", "1000000", "12345678000.01") == "pass"  # one part in a billion
    assert status("12345.678", "1000000", "12345678100") == "fail"
    assert status("99999999999999999", "99999999999999999", "1") == "fail"  # no overflow


def test_the_key_value_format_is_that_of_a_flat_json_object() -> None:
    import json
    import re

    from optiinfra_pipelines.clouds.focus.rule_formats import KEY_VALUE

    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)

    @given(st.dictionaries(st.text(), values) | values)
    @settings(max_examples=300, deadline=None)
    def agrees(value: Any) -> None:
        flat = isinstance(value, dict) and not any(isinstance(inner, dict | list) for inner in value.values())
        for ascii in (True, False):
            assert bool(re.search(KEY_VALUE, json.dumps(value, ensure_ascii=ascii))) is flat

    agrees()


# --- what three-valued logic makes of nulls, against Python's idea of it -------------------------------------------

TEXTS = st.sampled_from([None, "x", "y"])
LEAVES = st.builds(Is, st.sampled_from(["ChargeClass", "Tags"]), TEXTS) | st.builds(
    IsNot, st.sampled_from(["ChargeClass", "Tags"]), TEXTS
)
EXPRESSIONS: st.SearchStrategy[Expr] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Implies, inner, inner)
    ),
    max_leaves=6,
)


def truth(expr: Expr, row: dict[str, str | None]) -> bool | None:
    """What the expression is of the row: true, false or unknown."""
    match expr:
        case Is(column, None):
            return row[column] is None
        case IsNot(column, value):
            return row[column] != value
        case Is(column, value):
            return None if row[column] is None else row[column] == value
        case And(items):
            found = [truth(item, row) for item in items]
            return False if False in found else None if None in found else True
        case Or(items):
            found = [truth(item, row) for item in items]
            return True if True in found else None if None in found else False
        case Implies(condition, requirement):
            return truth(requirement, row) if truth(condition, row) else True
    raise AssertionError(expr)


@given(st.lists(st.tuples(EXPRESSIONS, st.none() | EXPRESSIONS), min_size=1, max_size=30))
@settings(max_examples=15, deadline=None)
def test_a_requirement_breaks_where_it_is_false_and_a_condition_holds_where_it_is_true(
    expressions: list[tuple[Expr, Expr | None]],
) -> None:
    rows = [{"ChargeClass": a, "Tags": b} for a in (None, "x", "y") for b in (None, "x", "y")]
    rules = [Rule(f"r{i}", "Tags", "MUST", "", req, when) for i, (req, when) in enumerate(expressions)]
    for engine in ENGINES:
        results = bill(engine, *rows).judge(rules)
        for result, (requirement, condition) in zip(results, expressions, strict=True):
            met = [row for row in rows if condition is None or truth(condition, row)]
            failed = [row for row in met if truth(requirement, row) is False]
            assert (result.rows_checked, result.rows_failed) == (len(met), len(failed)), (engine, result.rule)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (Is("NoSuchColumn", "x"), "column NoSuchColumn is not in the contract"),
        (Is('x" OR 1=1 --', "x"), 'column x" OR 1=1 -- is not in the contract'),
        (Is("BilledCost", "abc"), "column BilledCost is of type money, which 'abc' is not"),
        (AtLeast("BilledCost", 10**17), "column BilledCost is of type money, which 100000000000000000 is not"),
        (AtLeast("BilledCost", Decimal("1E-22")), "column BilledCost is of type money, which Decimal('1E-22') is not"),
        (Is("ChargePeriodEnd", "soon"), "column ChargePeriodEnd is of type timestamp, which 'soon' is not"),
        (Is("SkuId", 7), "column SkuId is of type string, which 7 is not"),
        (Is("SkuId", "a\0b"), "column SkuId is of type string, which 'a\\x00b' is not"),
        (Is("SkuId", "\ud800"), "column SkuId is of type string, which '\\ud800' is not"),
        (Undecidable("nobody knows"), "nobody knows"),
    ],
)
def test_what_rows_cannot_decide_is_not_applicable_with_its_reason(
    engine: Engine, requirement: Expr, reason: str
) -> None:
    (result,) = bill(engine, {}).judge([Rule("r", "SkuId", "MUST", "", requirement)])
    assert (result.status, result.reason) == ("not_applicable", reason)


@pytest.mark.parametrize("engine", ENGINES)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_text_is_compared_as_it_is(engine: Engine, text: str) -> None:
    rules = [
        Rule("is", "ResourceName", "MUST", "", Is("ResourceName", text)),
        Rule("is not", "ResourceName", "MUST", "", IsNot("ResourceName", text)),
        Rule("filled", "ResourceName", "MUST", "", HasFormat("ResourceName", "filled")),
    ]
    results = bill(engine, {"ResourceName": text}).judge(rules)
    assert [result.status for result in results[:2]] == ["pass", "fail"]
