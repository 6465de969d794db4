"""Running rules over a bill: which apply to whom, what follows from what, what is reported, how often it is read."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from optiinfra_pipelines.clouds.focus import rules as runner
from optiinfra_pipelines.clouds.focus.applicability import NOT_SUPPORTED, SUPPORTED
from optiinfra_pipelines.clouds.focus.rules import RuleResult, failures, run_rules, tally
from optiinfra_pipelines.tables.focus_rules import FOCUS_RULES
from optiinfra_pipelines.tables.rule import Is, IsNot, Or, Present, Rule
from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines_tests.clouds.focus.rule_models import check, every, model, rule
from optiinfra_pipelines_tests.clouds.focus.rule_tables import ALL_COLUMNS, ALL_CRITERIA, ENGINES, Bill, bill

pytestmark = pytest.mark.parametrize("engine", ENGINES)
NO_TAGS = check("CheckValue", ColumnName="Tags", Value=None)
HAS_SKU = check("CheckNotValue", ColumnName="SkuId", Value=None)
IS_USAGE = check("CheckValue", ColumnName="ChargeCategory", Value="Usage")
IS_TAX = check("CheckValue", ColumnName="ChargeCategory", Value="Tax")


def verdicts(table: Bill, rules: dict[str, Any], **given: Any) -> dict[str, str]:
    """Status of each rule of a model over a bill of one provider."""
    return {result.rule.id: result.status for result in table.judge(model(rules), **given)}


def test_every_rule_has_one_result_for_each_provider(engine: Engine) -> None:
    table = bill(engine, {"x_provider": "gcp"}, {"Tags": None}, {"x_provider": "gcp", "Tags": None})
    results = table.judge(model({"a": rule("Tags", NO_TAGS), "b": rule("SkuId", HAS_SKU)}))
    assert [(r.rule.id, r.provider, r.status, r.rows_checked, r.rows_failed) for r in results] == [
        ("a", "aws", "pass", 1, 0),
        ("a", "gcp", "fail", 2, 1),
        ("b", "aws", "pass", 1, 0),
        ("b", "gcp", "pass", 2, 0),
    ]
    assert tally(results) == {"pass": 3, "fail": 1, "not_applicable": 0}


def test_an_empty_bill_has_nothing_to_judge(engine: Engine) -> None:
    assert bill(engine).judge(FOCUS_RULES) == []


def test_two_rules_with_one_id_are_refused(engine: Engine) -> None:
    same = [Rule("r", "Tags", "MUST", "", Is("Tags", value)) for value in ("a", "b")]
    with pytest.raises(ValueError, match="several rules have the id r"):
        bill(engine, {}).judge(same)


def test_permissions_and_statements_outside_the_data_do_not_apply(engine: Engine) -> None:
    rules = {"may": rule("Tags", NO_TAGS, keyword="MAY"), "dynamic": rule("Tags", {}, type="Dynamic")}
    results = bill(engine, {}).judge(model(rules))
    assert [(r.status, r.reason) for r in results] == [
        ("not_applicable", "a permission (MAY) cannot be broken"),
        ("not_applicable", "needs knowledge outside the data"),
    ]


# --- composites ----------------------------------------------------------------------------------------------------


def test_a_rule_made_of_rules_fails_with_any_of_them(engine: Engine) -> None:
    rules = {
        "root": rule("Tags", every("inner", "sku")),
        "inner": rule("Tags", every("tags", "may")),
        "tags": rule("Tags", NO_TAGS, keyword="SHOULD"),
        "may": rule("Tags", NO_TAGS, keyword="MAY"),
        "sku": rule("SkuId", HAS_SKU),
    }
    assert verdicts(bill(engine, {"Tags": None}), rules) == {
        "root": "pass", "inner": "pass", "tags": "pass", "may": "not_applicable", "sku": "pass"
    }  # fmt: skip
    results = {r.rule.id: r for r in bill(engine, {}, {"Tags": None}).judge(model(rules))}
    assert (results["root"].status, results["root"].reason) == ("fail", "broken: inner")
    assert (results["root"].rows_checked, results["root"].rows_failed) == (2, 1)


def test_a_rule_made_of_rules_that_do_not_apply_does_not_apply(engine: Engine) -> None:
    rules = {"root": rule("Tags", every("may")), "may": rule("Tags", NO_TAGS, keyword="MAY")}
    assert verdicts(bill(engine, {}), rules) == {"root": "not_applicable", "may": "not_applicable"}


def test_a_rule_reached_through_a_condition_is_judged_only_where_it_holds(engine: Engine) -> None:
    rules = {
        "root": rule("Tags", every("taxes")),
        "taxes": rule("Tags", every("tags"), condition=IS_TAX),
        "tags": rule("Tags", NO_TAGS, condition=HAS_SKU),
    }
    table = bill(engine, {}, {"ChargeCategory": "Tax"}, {"ChargeCategory": "Tax", "SkuId": None})
    (tags,) = (r for r in table.judge(model(rules)) if r.rule.id == "tags")
    assert (tags.rows_checked, tags.rows_failed) == (1, 1)


def test_a_rule_reached_on_two_ways_is_judged_where_either_leads(engine: Engine) -> None:
    rules = {
        "taxes": rule("Tags", every("tags"), condition=IS_TAX),
        "usage": rule("Tags", every("tags"), condition=IS_USAGE),
        "tags": rule("Tags", NO_TAGS),
    }
    table = bill(engine, {}, {"ChargeCategory": "Tax"}, {"ChargeCategory": "Credit"})
    assert {r.rule.id: r.rows_checked for r in table.judge(model(rules))}["tags"] == 2
    rules["all"] = rule("Tags", every("tags"))
    assert {r.rule.id: r.rows_checked for r in table.judge(model(rules))}["tags"] == 3


def test_an_or_of_rules_asks_each_row_for_one_of_them(engine: Engine) -> None:
    rules = {
        "either": rule("Tags", every("null", "not null", function="OR")),
        "null": rule("Tags", NO_TAGS, condition=IS_TAX),
        "not null": rule("Tags", check("CheckValue", ColumnName="Tags", Value="{}")),
    }
    mixed = bill(engine, {"Tags": "{}"}, {"Tags": None, "ChargeCategory": "Tax"}, {"Tags": "x"})
    assert verdicts(mixed, rules)["either"] == "pass"  # the last row is no tax: the first rule holds of it
    assert verdicts(bill(engine, {"Tags": "x", "ChargeCategory": "Tax"}), rules)["either"] == "fail"


# --- who a rule applies to -----------------------------------------------------------------------------------------


def test_a_rule_applies_where_all_its_criteria_are_met(engine: Engine) -> None:
    rules = model({"r": rule("Tags", NO_TAGS, criteria=("TAGGING_SUPPORTED", "REGION_SUPPORTED"))})
    for met, status in ((ALL_CRITERIA, "fail"), (ALL_CRITERIA - {"REGION_SUPPORTED"}, "not_applicable")):
        (result,) = bill(engine, {}).judge(rules, criteria={"aws": met})
        assert result.status == status
    assert result.reason == "aws is not declared to meet REGION_SUPPORTED"


def test_criteria_of_a_composite_hold_for_the_rules_that_only_it_leads_to(engine: Engine) -> None:
    rules = {
        "tagged": rule("Tags", every("tags"), criteria=("TAGGING_SUPPORTED",)),
        "tags": rule("Tags", NO_TAGS),
    }
    assert verdicts(bill(engine, {}), rules, criteria={"aws": frozenset()})["tags"] == "not_applicable"
    rules["all"] = rule("Tags", every("tags"))
    assert verdicts(bill(engine, {}), rules, criteria={"aws": frozenset()})["tags"] == "fail"


def test_declared_providers_are_judged_by_their_declaration_and_others_by_their_columns(engine: Engine) -> None:
    rules = model({"r": rule("CommitmentDiscountId", HAS_SKU, criteria=("COMMITMENT_DISCOUNT_SUPPORTED",))})
    table = bill(engine, *({"x_provider": name} for name in ("aws", "bare", "rich", "vultr")))
    present = {"aws": frozenset({"SkuId"}), "bare": frozenset({"SkuId"}), "rich": ALL_COLUMNS, "vultr": ALL_COLUMNS}
    found = {result.provider: result.status for result in table.judge(rules, present, {})}
    assert found == {"aws": "pass", "bare": "not_applicable", "rich": "pass", "vultr": "not_applicable"}


def test_a_column_that_the_source_lacks_is_reported_once_as_absent(engine: Engine) -> None:
    rules = {
        "present": rule("Tags", check("ColumnPresent", ColumnName="Tags")),
        "not null": rule("Tags", check("CheckNotValue", ColumnName="Tags", Value=None)),
        "one": rule("SkuId", check("CheckDistinctCount", ColumnAName="SkuId", ColumnBName="Tags", ExpectedCount=1)),
    }
    table = bill(engine, {"Tags": None})
    results = {r.rule.id: r for r in table.judge(model(rules), {"aws": ALL_COLUMNS - {"Tags"}})}
    assert {id: result.status for id, result in results.items()} == {
        "present": "fail", "not null": "not_applicable", "one": "not_applicable"
    }  # fmt: skip
    assert {result.reason for result in results.values()} == {"the source of aws has no column Tags"}


def test_a_condition_on_a_column_that_the_source_lacks_reads_it_as_null(engine: Engine) -> None:
    not_unused = check("CheckNotValue", ColumnName="CommitmentDiscountStatus", Value="Unused")
    rules = model({"r": rule("Tags", NO_TAGS, condition=not_unused)})
    (result,) = bill(engine, {}).judge(rules, {"aws": frozenset({"Tags"})})
    assert (result.status, result.rows_checked) == ("fail", 1)


def test_each_declared_provider_says_of_every_criterion_whether_and_why(engine: Engine) -> None:
    for provider in ("aws", "azure", "gcp", "vultr"):
        assert SUPPORTED[provider].keys() | NOT_SUPPORTED[provider].keys() == ALL_CRITERIA
        assert not SUPPORTED[provider].keys() & NOT_SUPPORTED[provider].keys()
        assert all({**SUPPORTED[provider], **NOT_SUPPORTED[provider]}.values())


# --- what is reported ----------------------------------------------------------------------------------------------


def test_the_example_is_the_first_broken_row_with_the_columns_that_the_rule_reads(engine: Engine) -> None:
    rules = [
        Rule("cost", "ListCost", "MUST", "", Is("ListCost", 0), IsNot("ChargePeriodEnd", "2026-10-02")),
        Rule("tags", "Tags", "MUST", "", Is("Tags", None)),
    ]
    table = bill(
        engine,
        {"x_source": "s3://b", "ListCost": Decimal(3)},
        {"x_source": "s3://a", "ListCost": Decimal("-1E-21"), "x_row_number": 12, "ResourceId": None},
        {"x_source": "s3://a", "ListCost": Decimal(4), "x_row_number": 13},
        {"x_source": "s3://a", "ListCost": Decimal(5), "x_row_number": 5, "ChargePeriodEnd": datetime(2026, 10, 2)},
    )
    cost, tags = table.judge(rules)
    assert cost.example == {
        "x_customer_id": "acme",
        "x_source": "s3://a",
        "x_row_number": 12,
        "BillingAccountId": "123456789012",
        "ResourceId": None,
        "ListCost": "-0.000000000000000000001",
        "ChargePeriodEnd": "2026-10-01T01:00:00Z",
    }
    assert (cost.rows_checked, cost.rows_failed) == (3, 3)
    assert (tags.example["x_row_number"], tags.example["Tags"]) == (5, '{"team": "shop", "spot": false}')


def test_failures_are_the_broken_rules_themselves_the_most_rows_first(engine: Engine) -> None:
    rules = {
        "root": rule("Tags", every("few", "many")),
        "few": rule("Tags", NO_TAGS, condition=IS_TAX, keyword="SHOULD"),
        "many": rule("Tags", NO_TAGS),
        "none": rule("SkuId", HAS_SKU),
    }
    rows = failures(bill(engine, {}, {"ChargeCategory": "Tax"}).judge(model(rules)))
    assert [(row["rule"], row["keyword"], row["rows_failed"], row["rows_checked"]) for row in rows] == [
        ("many", "MUST", 2, 2),
        ("few", "SHOULD", 1, 1),
    ]
    assert json.loads(rows[0]["example"])["x_row_number"] == 1
    assert (rows[0]["provider"], rows[0]["origin"], rows[0]["column"]) == ("aws", "FOCUS 1.2", "Tags")


def test_a_broken_rule_that_contradicts_the_specification_says_so(engine: Engine) -> None:
    allowed = check("CheckValue", ColumnName="CommitmentDiscountStatus", Value="Active")
    rules = model({"CommitmentDiscountStatus-C-005-M": rule("CommitmentDiscountStatus", allowed)})
    (result,) = bill(engine, {"CommitmentDiscountStatus": "Used"}).judge(rules)
    assert result.reason == "lists Active, Expired and Pending, where the page allows Used and Unused"


# --- how it is read ------------------------------------------------------------------------------------------------


def counting(table: Bill, sent: list[str]) -> Any:
    def query(sql: str) -> pa.Table:
        sent.append(sql)
        return table.query(sql)

    return query


def test_all_rules_take_one_scan_one_statement_on_groups_and_one_on_examples(engine: Engine) -> None:
    table, sent = bill(engine, {"ListCost": Decimal(7)}, {"ServiceCategory": "Other"}), list[str]()
    results = run_rules(counting(table, sent), table.relation, FOCUS_RULES, engine, {"aws": ALL_COLUMNS})
    assert tally(results)["fail"] > 2
    assert len(sent) == 3


def test_the_bill_may_be_a_subquery(engine: Engine) -> None:
    table = bill(engine, {}, {"x_load_id": "old", "ListCost": Decimal(7)})
    current = f"(SELECT * FROM {table.relation} WHERE x_load_id = 'load-1')"
    results = run_rules(table.query, current, FOCUS_RULES, engine, {"aws": ALL_COLUMNS})
    assert tally(results)["fail"] == 0


def test_no_value_looks_like_a_parameter_of_the_warehouse(engine: Engine) -> None:
    table, sent = bill(engine, {"ResourceName": "$team {x:String}"}), list[str]()
    rules = [Rule("r", "ResourceName", "MUST", "", IsNot("ResourceName", "$team {x:String}")), *FOCUS_RULES]
    results = run_rules(counting(table, sent), table.relation, rules, engine, {"aws": ALL_COLUMNS})
    assert results[0].example["ResourceName"] == "$team {x:String}"
    assert engine == "duckdb" or not any("$" in sql for sql in sent)  # DuckDB itself looks for markers, not in text


def test_more_rules_than_a_statement_holds_are_spread_over_several(engine: Engine) -> None:
    rules = [Rule(f"r{i}", "SkuId", "MUST", "", Or((Is("SkuId", "x" * 600 + str(i)),))) for i in range(500)]
    table, sent = bill(engine, {}), list[str]()
    results = run_rules(counting(table, sent), table.relation, rules, engine, {"aws": ALL_COLUMNS})
    assert tally(results) == {"pass": 0, "fail": 500, "not_applicable": 0}
    assert len(sent) > 2
    assert max(len(sql.encode()) for sql in sent) < 262_144  # ClickHouse's max_query_size


def test_the_engines_agree_on_every_result(engine: Engine) -> None:
    rows = [{"ListCost": Decimal(i), "Tags": "x" * (i % 3) or None, "x_provider": f"p{i % 2}"} for i in range(6)]
    present = {"p0": ALL_COLUMNS, "p1": ALL_COLUMNS - {"Tags", "SkuId"}}

    def results(on: Engine) -> list[RuleResult]:
        return bill(on, *rows).judge(FOCUS_RULES, present, {})

    assert results(engine) == results("duckdb")


def test_a_rule_on_presence_needs_no_look_at_the_rows(engine: Engine) -> None:
    table, sent = bill(engine, {}), list[str]()
    rules = [Rule("r", "Tags", "MUST", "", Present("x_NotInTheContract"))]
    present = {"aws": frozenset({"x_NotInTheContract"})}
    (result,) = run_rules(counting(table, sent), table.relation, rules, engine, present)
    assert result.status == "pass"
    assert len(sent) == 1
    assert runner.failures([result]) == []
