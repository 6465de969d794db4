"""Reading FOCUS model files: the published one against real bills, and files that are wrong."""

from collections import Counter
from typing import Any

import duckdb
import pytest

from optiinfra_pipelines.clouds.focus.rule_model import ModelError, load_model
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_1_2, SERVICE_CATEGORY_OF
from optiinfra_pipelines.tables.focus_rules import FOCUS_RULES
from optiinfra_pipelines.tables.rule import And, HasType, Is, IsNot, OneOf, Or, Present, Rule, Undecidable
from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines_tests.clouds.focus.rule_models import check, every, model, model_bytes, rule
from optiinfra_pipelines_tests.clouds.focus.rule_tables import ENGINES, SHARED, bill, stored

MODEL = SHARED / "focus_spec_1.2" / "model-1.2.json"
SAMPLE = SHARED / "focus_sample" / "focus_1.0_sample_1000.csv"
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"the published model is not at {MODEL}")
needs_sample = pytest.mark.skipif(not SAMPLE.exists(), reason=f"the FOCUS sample is not at {SAMPLE}")


# --- the published model -------------------------------------------------------------------------------------------


@needs_model
def test_the_published_model_has_621_rules_of_which_420_are_decidable() -> None:
    rules = load_model(MODEL)
    assert len(rules) == 621
    assert {rule.origin for rule in rules} == {"FOCUS 1.2"}
    reasons = Counter(rule.requirement.reason for rule in rules if isinstance(rule.requirement, Undecidable))
    assert reasons == {"needs knowledge outside the data": 201}
    assert len(load_model(MODEL.read_bytes())) == 621


@needs_model
def test_the_contract_agrees_with_the_published_model_on_presence_types_and_values() -> None:
    def facts(rules: list[Rule]) -> set[Any]:
        found: set[Any] = set()
        for stated in rules:
            match stated.requirement:
                case Present(column) if stated.keyword != "MAY":
                    found.add((column, stated.keyword, frozenset(stated.criteria)))
                case HasType(column, kind):
                    found.add((column, kind))
                case OneOf(column, values):
                    found.add((column, frozenset(values)))
                case Or(items) if all(isinstance(item, Is) for item in items):
                    found.add((stated.column, frozenset(item.value for item in items if isinstance(item, Is))))
        return found

    ours, theirs = facts(list(FOCUS_RULES)), facts(load_model(MODEL))
    currency = {(column.name, "currency") for column in FOCUS_1_2}
    assert theirs - ours == {("CommitmentDiscountStatus", frozenset({"Active", "Expired", "Pending"}))}
    assert ours - theirs - currency == {
        ("CommitmentDiscountStatus", frozenset({"Used", "Unused"})),
        ("ChargeClass", frozenset({"Correction"})),  # one value: CheckValue in the model
    }


@needs_model
def test_the_contract_agrees_with_the_published_model_on_the_category_of_each_subcategory() -> None:
    (parent,) = (rule for rule in load_model(MODEL) if rule.id == "ServiceSubcategory-C-004-M")
    assert isinstance(parent.requirement, Or)
    pairs = {tuple(is_.value for is_ in pair.items) for pair in parent.requirement.items}  # type: ignore[union-attr]
    assert pairs == set(SERVICE_CATEGORY_OF.items())


def sample() -> tuple[Any, dict[str, frozenset[str]]]:
    """The FOCUS sample as rows of the billing contract, and the columns that each provider delivered."""
    database = duckdb.connect()
    source = f"read_csv('{SAMPLE}', nullstr='NULL', all_varchar=true)"
    header = frozenset(name for name, *_ in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall())
    given = {
        "x_provider": "CASE ProviderName WHEN 'Microsoft' THEN 'azure' ELSE lower(ProviderName) END",
        "x_row_number": "row_number() OVER ()",
        "x_collected_at": "'2026-11-02'",
    }
    picked = []
    for column in FOCUS_BILLING.columns:
        sql = f'"{column.name}"' if column.name in header else "NULL" if column.nullable else "''"
        picked.append(f'CAST({given.get(column.name, sql)} AS {column.type.duckdb}) AS "{column.name}"')
    rows = database.sql(f"SELECT {', '.join(picked)} FROM {source}").to_arrow_table()
    return rows, dict.fromkeys(rows.column("x_provider").unique().to_pylist(), header)


@needs_model
@needs_sample
def test_both_engines_judge_a_real_bill_alike_by_all_621_rules_and_the_contract() -> None:
    rows, present = sample()
    rules = [*FOCUS_RULES, *load_model(MODEL)]
    found = [stored(engine, rows).judge(rules, present, {}) for engine in ENGINES]
    assert found[0] == found[1]
    assert len(found[0]) == len(rules) * len(present)
    by_origin = Counter((result.rule.origin, result.provider) for result in found[0])
    assert {count for (origin, _), count in by_origin.items() if origin == "FOCUS 1.2"} == {621}
    broken = {result.rule.id for result in found[0] if result.status == "fail" and result.provider == "aws"}
    assert {"BilledCost-C-005-C", "ServiceName.one_ServiceCategory", "ResourceType.not_null_with_ResourceId"} <= broken
    assert not {"ListCost.product", "ListCost-C-009-C", "ChargeFrequency.allowed"} & broken


@needs_model
@pytest.mark.parametrize("engine", ENGINES)
def test_a_conforming_bill_breaks_of_the_published_model_only_what_contradicts_the_specification(
    engine: Engine,
) -> None:
    results = bill(engine, {}).judge(load_model(MODEL))
    broken = {result.rule.id for result in results if result.status == "fail" and not result.rule.children}
    assert broken == {"CommitmentDiscountStatus-C-003-C", "CommitmentDiscountStatus-C-004-C", "InvoiceId-C-004-C"}
    assert all(result.rule.note for result in results if result.rule.id in broken)


# --- odd and wrong files -------------------------------------------------------------------------------------------


def test_conditions_that_the_published_model_misspells_are_read_as_meant() -> None:
    null = {"CheckFunction": "CheckValue", "ColumnName": "SkuId", "Value": None}
    misnamed = {"CheckFunction": "CheckNotValue", "CheckCondition": "ResourceId", "Value": None}
    conditions: list[Any] = [{"AND": [null, null]}, {"AND": null}, {"OR": [null]}, misnamed]
    rules = model({f"r{i}": rule("SkuId", null, condition=condition) for i, condition in enumerate(conditions)})
    is_null = Is("SkuId", None)
    assert [rule.condition for rule in rules] == [
        And((is_null, is_null)), And((is_null,)), Or((is_null,)), IsNot("ResourceId", None)
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_a_check_that_is_unknown_or_incomplete_makes_only_its_own_rule_inapplicable(engine: Engine) -> None:
    rules = {
        "new": rule("SkuId", check("CheckStringEndsWith", ColumnName="SkuId", Value="x")),
        "inside": rule("SkuId", check("AND", Items=[check("CheckNoDuplicates", ColumnName="SkuId")])),
        "incomplete": rule("SkuId", check("CheckSameValue", ColumnAName="SkuId")),
        "condition": rule("SkuId", check("TypeString", ColumnName="SkuId"), condition=check("CheckValue")),
        "inactive": {**rule("SkuId", check("TypeString", ColumnName="SkuId")), "Status": "Draft"},
        "nested": rule("SkuId", check("OR", Items=[check("ColumnPresent", ColumnName="SkuId")])),
        "fine": rule("SkuId", check("TypeString", ColumnName="SkuId")),
    }
    results = bill(engine, {}).judge(model(rules))
    assert {result.rule.id: result.reason for result in results} == {
        "new": "check function CheckStringEndsWith is not known here",
        "inside": "check function CheckNoDuplicates is not known here",
        "incomplete": "the model gives CheckSameValue no usable ColumnBName",
        "condition": "the model gives CheckValue no usable ColumnName and Value",
        "inactive": "the model marks it Draft",
        "nested": "a check of the source or of groups of rows stands inside a check of single rows",
        "fine": "",
    }
    assert [result.status for result in results] == ["not_applicable"] * 6 + ["pass"]


TEXT = check("TypeString", ColumnName="SkuId")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"\xff", "the model file is not JSON"),
        (b"{", "the model file is not JSON"),
        (b"[]", "the model file has no ModelRules object"),
        (b'{"ModelRules": {}}', "the model file has no ModelRules object"),
        (model_bytes({"r": []}), "rule r is not an object"),
        (model_bytes({"r": {"Reference": "SkuId"}}), "rule r: ValidationCriteria is missing"),
        (model_bytes({"r": rule("SkuId", TEXT, keyword="OUGHT")}), "rule r: Keyword 'OUGHT' is none of MUST, "),
        (model_bytes({"r": {**rule("SkuId", TEXT), "Reference": 7}}), "rule r: Reference is not of type str"),
        (model_bytes({"r": {**rule("SkuId", TEXT), "ApplicabilityCriteria": [7]}}), "are not all strings"),
        (model_bytes({"r": rule("SkuId", {"Column": "SkuId", "Value": 1})}), "Requirement: CheckFunction is missing"),
        (model_bytes({"r": rule("SkuId", check("AND", Items=[]))}), "rule r, Requirement: AND has no Items"),
        (model_bytes({"r": rule("SkuId", check("AND", Items=["x"]))}), "rule r, Requirement: 'x' is not a check"),
        (model_bytes({"r": rule("SkuId", every("s"))}), "rule r, Requirement: it refers to rule s, which does not"),
        (model_bytes({"r": rule("SkuId", every("s")), "s": rule("SkuId", every("r"))}), "in a circle: "),
        (model_bytes({"r": rule("SkuId", TEXT, condition=every("r"))}), "rule r, Condition: it refers to another rule"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_refused_with_the_rule_and_what_is_wrong(file: bytes, message: str) -> None:
    with pytest.raises(ModelError) as error:
        load_model(file)
    assert message in str(error.value)


def test_numbers_of_a_model_keep_their_digits() -> None:
    text = model_bytes({"r": rule("ListCost", check("CheckValue", ColumnName="ListCost", Value="digits"))})
    (loaded,) = load_model(text.replace(b'"digits"', b"0.100000000000000000001"))
    assert isinstance(loaded.requirement, Is)
    assert str(loaded.requirement.value) == "0.100000000000000000001"


def test_json_columns_hold_text_for_a_model() -> None:
    assert FOCUS_BILLING.column("Tags").type is Type.JSON
    (result,) = bill("duckdb", {}).judge(model({"r": rule("Tags", check("TypeString", ColumnName="Tags"))}))
    assert result.status == "pass"
