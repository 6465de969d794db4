"""What FOCUS 1.2 says of each billing column, as rules: presence, nullability, type, format, values and relations.

Written from the specification's column pages (CC-BY-4.0, focus.finops.org); a statement that rows cannot decide, such
as one about the provider's documentation, has no rule. Ids read `Column.statement`. Columns are in `focus.py`.
"""

from collections.abc import Iterable, Iterator

from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_1_2, SERVICE_CATEGORY_OF, FocusColumn
from optiinfra_pipelines.tables.rule import (
    And,
    AtLeast,
    Before,
    DistinctCount,
    Expr,
    Format,
    HasFormat,
    HasType,
    Is,
    IsNot,
    Keyword,
    Kind,
    OneOf,
    Or,
    Present,
    Product,
    Rule,
    Same,
    SumsEqual,
)

_COLUMNS = {column.name: column for column in FOCUS_1_2}
_CURRENCY_DIFFERS = "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED"
_PRICE_LIST = "PUBLIC_PRICE_LIST_SUPPORTED"
# Their presence depends on more than one set of criteria; their other rules hold wherever prices have a currency.
_IN_PRICING_CURRENCY = (
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
)

_USAGE, _PURCHASE = Is("ChargeCategory", "Usage"), Is("ChargeCategory", "Purchase")
_TAX, _CREDIT = Is("ChargeCategory", "Tax"), Is("ChargeCategory", "Credit")
_NO_CORRECTION = IsNot("ChargeClass", "Correction")
_PRICED = And((Or((_USAGE, _PURCHASE)), _NO_CORRECTION))
_COMMITTED = IsNot("CommitmentDiscountId", None)
_COMMITTED_USAGE = And((_USAGE, _COMMITTED))


def _rule(
    column: str,
    statement: str,
    keyword: Keyword,
    says: str,
    requirement: Expr,
    when: Expr | None = None,
    criteria: tuple[str, ...] | None = None,
) -> Rule:
    """`says` completes "<column> <keyword> ..."; without `criteria` those of the column's presence hold."""
    if criteria is None:
        criteria = (_CURRENCY_DIFFERS,) if column in _IN_PRICING_CURRENCY else _COLUMNS[column].criteria
    return Rule(f"{column}.{statement}", column, keyword, f"{column} {keyword} {says}", requirement, when, criteria)


def _presence() -> Iterator[Rule]:
    for column in FOCUS_1_2:
        if column.name in _IN_PRICING_CURRENCY:
            for keyword, criterion in (("MUST", "VIRTUAL_CURRENCY_SUPPORTED"), ("RECOMMENDED", _CURRENCY_DIFFERS)):
                yield _present(column, keyword, (_PRICE_LIST, criterion), f"present_{keyword.lower()}")
        else:
            yield _present(column, column.presence, column.criteria, "present")


def _present(column: FocusColumn, keyword: str, criteria: tuple[str, ...], statement: str) -> Rule:
    if keyword == "RECOMMENDED":
        name = column.name
        text = f"{name} is RECOMMENDED to be present"
        return Rule(f"{name}.{statement}", name, "RECOMMENDED", text, Present(name), None, criteria)
    return _rule(column.name, statement, "MUST", "be present", Present(column.name), None, criteria)


_KINDS: dict[Type, tuple[Kind, str]] = {
    Type.STRING: ("string", "String"),
    Type.MONEY: ("decimal", "Decimal"),
    Type.TIMESTAMP: ("datetime", "Date/Time"),
}
_FORMATS: dict[Type, tuple[Format, str]] = {
    Type.STRING: ("string", "StringHandling"),
    Type.MONEY: ("numeric", "NumericFormat"),
    Type.TIMESTAMP: ("datetime", "DateTimeFormat"),
    Type.JSON: ("key_value", "KeyValueFormat"),
}


def _types_and_formats() -> Iterator[Rule]:
    for column in FOCUS_1_2:
        name = column.name
        if column.type in _KINDS:
            kind, label = _KINDS[column.type]
            yield _rule(name, "type", "MUST", f"be of type {label}", HasType(name, kind))
        if column.allowed:
            values = ", ".join(column.allowed)
            yield _rule(name, "allowed", "MUST", f"be one of: {values}", OneOf(name, column.allowed))
        else:
            format, label = _FORMATS[column.type]
            yield _rule(name, "format", "MUST", f"conform to {label} requirements", HasFormat(name, format))
        if column.type is Type.STRING and not column.allowed:
            says = 'be blank or a placeholder such as "Not Applicable" for a value that is not there'
            yield _rule(name, "filled", "MUST NOT", says, HasFormat(name, "filled"))
    for name in ("CommitmentDiscountUnit", "ConsumedUnit", "PricingUnit"):
        yield _rule(name, "unit", "SHOULD", "conform to UnitFormat requirements", HasFormat(name, "unit"))
    for name in ("BillingCurrency", "PricingCurrency"):
        yield _rule(name, "currency", "MUST", "conform to CurrencyFormat requirements", HasFormat(name, "currency"))
    national = HasFormat("BillingCurrency", "national_currency")
    yield _rule("BillingCurrency", "national", "MUST", "be expressed in national currency", national)
    yield from _sku_price_details()


def _sku_price_details() -> Iterator[Rule]:
    name, flat = "SkuPriceDetails", HasFormat("SkuPriceDetails", "key_value")
    keys: tuple[tuple[str, Keyword, str, Format], ...] = (
        ("keys", "MUST", 'have property keys that FOCUS defines or that begin with "x_"', "sku_keys"),
        ("value_types", "MUST", "hold properties that FOCUS defines in the type specified for them", "sku_types"),
        ("pascal_case", "SHOULD", "have property keys in PascalCase", "sku_case"),
    )
    for statement, keyword, says, format in keys:
        yield _rule(name, statement, keyword, says, HasFormat(name, format), flat)


_NEVER_NULL = (
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart"),
    *("ChargeCategory", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost"),
    *("EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCurrency", "PricingCurrencyEffectiveCost"),
    *("ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory"),
)
# Null for taxes, given for usage and purchases that are not corrections.
_OF_A_PRICE = (
    *("ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingCurrencyContractedUnitPrice"),
    *("PricingCurrencyListUnitPrice", "PricingQuantity", "SkuId", "SkuPriceId"),
)
# (column, the column that it describes): null exactly when that one is null
_TOGETHER = (
    ("BillingAccountType", "BillingAccountId"),
    ("CommitmentDiscountCategory", "CommitmentDiscountId"),
    ("CommitmentDiscountType", "CommitmentDiscountId"),
    ("CommitmentDiscountUnit", "CommitmentDiscountQuantity"),
    ("ConsumedUnit", "ConsumedQuantity"),
    ("PricingUnit", "PricingQuantity"),
    ("RegionName", "RegionId"),
    ("ResourceType", "ResourceId"),
    ("SubAccountName", "SubAccountId"),
    ("SubAccountType", "SubAccountId"),
)
# null when that one is null
_NULL_WITH = (
    ("CapacityReservationStatus", "CapacityReservationId"),
    ("CommitmentDiscountName", "CommitmentDiscountId"),
    ("CommitmentDiscountStatus", "CommitmentDiscountId"),
    ("ResourceName", "ResourceId"),
    ("SkuMeter", "SkuId"),
    ("SkuPriceDetails", "SkuPriceId"),
)


def _null(column: str, statement: str, says: str, when: Expr) -> Rule:
    return _rule(column, statement, "MUST", f"be null {says}", Is(column, None), when)


def _not_null(
    column: str,
    statement: str,
    says: str,
    when: Expr | None = None,
    keyword: Keyword = "MUST NOT",
    criteria: tuple[str, ...] | None = None,
) -> Rule:
    return _rule(column, statement, keyword, f"be null {says}".rstrip(), IsNot(column, None), when, criteria)


def _nullability() -> Iterator[Rule]:
    for name in _NEVER_NULL:
        yield _not_null(name, "not_null", "")
    yield _not_null("BillingAccountName", "not_null", "", criteria=("ACCOUNT_NAMING_SUPPORTED",))
    yield _not_null("ChargeDescription", "not_null", "", keyword="SHOULD NOT")
    for name, other in (*_TOGETHER, *_NULL_WITH):
        yield _null(name, f"null_without_{other}", f"when {other} is null", Is(other, None))
    for name, other in _TOGETHER:
        yield _not_null(name, f"not_null_with_{other}", f"when {other} is not null", IsNot(other, None))
    for name in _OF_A_PRICE:
        yield _null(name, "null_for_tax", 'when ChargeCategory is "Tax"', _TAX)
        says = 'when ChargeCategory is "Usage" or "Purchase" and ChargeClass is not "Correction"'
        yield _not_null(name, "not_null_when_priced", says, _PRICED)
    says = "when SkuId is not null"
    yield _not_null("SkuMeter", "not_null_with_SkuId", says, IsNot("SkuId", None), "SHOULD NOT")
    for name, other in (
        ("CapacityReservationStatus", "CapacityReservationId"),
        ("CommitmentDiscountStatus", "CommitmentDiscountId"),
    ):
        says = f'when {other} is not null and ChargeCategory is "Usage"'
        yield _not_null(name, "not_null_for_usage", says, And((IsNot(other, None), _USAGE)))
    unused = Is("CapacityReservationStatus", "Unused")
    yield _not_null("CapacityReservationId", "not_null_when_unused", "when the charge is unused capacity", unused)
    yield from _quantities()


def _quantities() -> Iterator[Rule]:
    used = IsNot("CommitmentDiscountStatus", "Unused")
    says = 'when ChargeCategory is not "Usage", or CommitmentDiscountStatus is "Unused"'
    idle = Or((IsNot("ChargeCategory", "Usage"), Is("CommitmentDiscountStatus", "Unused")))
    yield _null("ConsumedQuantity", "null_unless_consumed", says, idle)
    says = 'for usage that is not "Unused" and not a correction'
    yield _not_null("ConsumedQuantity", "not_null_when_consumed", says, And((_USAGE, used, _NO_CORRECTION)))
    says = "for usage and purchases under a commitment discount that are not corrections"
    yield _not_null("CommitmentDiscountQuantity", "not_null_when_committed", says, And((_PRICED, _COMMITTED)))
    says = 'when ChargeCategory is neither "Usage" nor "Purchase", or CommitmentDiscountId is null'
    other = And((IsNot("ChargeCategory", "Usage"), IsNot("ChargeCategory", "Purchase")))
    free = Or((other, Is("CommitmentDiscountId", None)))
    yield _null("CommitmentDiscountQuantity", "null_unless_committed", says, free)


def _values() -> Iterator[Rule]:
    name = "ChargeFrequency"
    usage_based = IsNot(name, "Usage-Based")
    says = 'be "Usage-Based" when ChargeCategory is "Purchase"'
    yield _rule(name, "not_usage_based_for_purchase", "MUST NOT", says, usage_based, _PURCHASE)
    for kind in ("ContractedUnitPrice", "ListUnitPrice"):
        for name in (kind, f"PricingCurrency{kind}"):
            yield _rule(name, "non_negative", "MUST", "be a non-negative decimal value", AtLeast(name, 0))
    says = 'be "Committed" for usage that a commitment discount covers'
    committed = Is("PricingCategory", "Committed")
    yield _rule("PricingCategory", "committed", "MUST", says, committed, _COMMITTED_USAGE)
    says = "be 0 for the purchase of a commitment discount, which covers future charges"
    for name in ("EffectiveCost", "PricingCurrencyEffectiveCost"):
        yield _rule(name, "zero_for_commitment", "MUST", says, Is(name, 0), And((_PURCHASE, _COMMITTED)))
    for period in ("BillingPeriod", "ChargePeriod"):
        start, end = f"{period}Start", f"{period}End"
        says = f"be the inclusive start of a period that {end} ends exclusively: earlier than that"
        yield _rule(start, "before_end", "MUST", says, Before(start, end))


def _relations() -> Iterator[Rule]:
    for kind in ("Contracted", "List"):
        price, cost = f"{kind}UnitPrice", f"{kind}Cost"
        says = f"match the product of {price} and PricingQuantity, unless the row is a correction"
        yield _rule(cost, "product", "MUST", says, Product(price, "PricingQuantity", cost), _NO_CORRECTION)
        says = f"match BilledCost for credits without a {price}"
        credit = And((_CREDIT, Is(price, None)))
        yield _rule(cost, "billed_for_credit", "MUST", says, Same(cost, "BilledCost"), credit)
    says = 'match BilledCost when ChargeCategory is "Credit"'
    yield _rule("EffectiveCost", "billed_for_credit", "MUST", says, Same("EffectiveCost", "BilledCost"), _CREDIT)
    yield _rule(
        "ServiceSubcategory", "category", "MUST", "belong to the row's ServiceCategory", Or(tuple(_subcategories()))
    )
    yield _one("ServiceName", "ServiceCategory", "MUST", ())
    yield _one("ServiceName", "ServiceSubcategory", "SHOULD", ())
    yield _one("SkuPriceId", "SkuId", "MUST", _COLUMNS["SkuPriceId"].criteria)
    yield _one("SkuId", "SkuMeter", "SHOULD", _COLUMNS["SkuMeter"].criteria, IsNot("SkuMeter", None))
    unit = IsNot("CommitmentDiscountUnit", None)
    yield _one("CommitmentDiscountId", "CommitmentDiscountUnit", "MUST", ("COMMITMENT_DISCOUNT_SUPPORTED",), unit)
    yield _one("InvoiceId", "BillingCurrency", "MUST", ())


def _subcategories() -> Iterable[Expr]:
    for category in dict.fromkeys(SERVICE_CATEGORY_OF.values()):
        own = tuple(sub for sub, parent in SERVICE_CATEGORY_OF.items() if parent == category)
        yield And((Is("ServiceCategory", category), OneOf("ServiceSubcategory", own)))


def _one(per: str, column: str, keyword: Keyword, criteria: tuple[str, ...], when: Expr | None = None) -> Rule:
    says = f"go with one and only one {column}"
    return _rule(per, f"one_{column}", keyword, says, DistinctCount(per, column, 1), when, criteria)


def _commitments() -> Iterator[Rule]:
    """Sums per CommitmentDiscountId; against purchases only where the data hold both sides from start to end."""
    span = ("ChargePeriodStart", "ChargePeriodEnd")
    quantity = "CommitmentDiscountQuantity"
    used = And((_USAGE, OneOf("CommitmentDiscountStatus", ("Used", "Unused"))))
    for column, statement, other, when, over, says in (
        ("EffectiveCost", "sum_of_usage", "BilledCost", _PURCHASE, span, "BilledCost summed over purchases"),
        ("EffectiveCost", "sum_over_status", "EffectiveCost", used, None, 'that over its "Used" and "Unused" rows'),
        (quantity, "sum_of_usage", quantity, _PURCHASE, span, "that over its purchases"),
    ):
        sums = SumsEqual("CommitmentDiscountId", column, _USAGE, other, when, over)
        says = f"equal, summed over the usage of a commitment discount, {says}"
        yield _rule(column, statement, "MUST", says, sums, None, ("COMMITMENT_DISCOUNT_SUPPORTED",))


FOCUS_RULES: tuple[Rule, ...] = (
    *_presence(),
    *_types_and_formats(),
    *_nullability(),
    *_values(),
    *_relations(),
    *_commitments(),
)
