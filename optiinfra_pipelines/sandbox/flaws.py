"""What is wrong with a few rows of the bills, on purpose: the list of planted flaws and what must become of each.

A rejected row must not be loaded; a violation is loaded and breaks one FOCUS rule; a normalised value is loaded
with another spelling than the one printed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

REASONS = ("not_a_number", "too_many_decimals", "missing_value", "invalid_date", "unknown_value", "ragged_line")


@dataclass(frozen=True)
class Flaw:
    """One planted flaw in the `nth` charge of a bill where column `where[0]` holds `where[1]`.

    `reason` is one of REASONS for a rejected row; `rules` are the ids and words of the rules that a violation breaks.
    `change` makes the printed value of `column` out of the right one; without a column the line is cut short.
    """

    customer_id: str
    cloud: str
    month: str
    where: tuple[str, str]
    nth: int
    outcome: Literal["rejected", "violation", "normalised"]
    reason: str = ""
    column: str | None = None
    change: Callable[[Any], Any] = lambda value: value
    rules: tuple[tuple[str, str], ...] = ()


def _prints(text: str | None) -> Callable[[Any], str | None]:
    return lambda _: text


_USAGE = ("ChargeCategory", "Usage")
_CUR_USAGE = ("lineItem/LineItemType", "Usage")
_TOO_FINE = "1.2345678901234567890123"  # 22 decimals

REJECTED = (
    Flaw("acme", "aws", "2026-08", _USAGE, 40, "rejected", "missing_value", "BilledCost", _prints(None)),
    Flaw("acme", "aws", "2026-10", _USAGE, 90, "rejected", "unknown_value", "ChargeCategory", _prints("Refund")),
    Flaw("acme", "azure", "2026-08", _USAGE, 3, "rejected", "not_a_number", "BilledCost", _prints("n/a")),
    Flaw("acme", "azure", "2026-08", _USAGE, 9, "rejected", "missing_value", "BilledCost", _prints(None)),
    Flaw("acme", "azure", "2026-09", _USAGE, 5, "rejected", "invalid_date", "ChargePeriodStart", _prints("2/30/2026")),
    Flaw("acme", "azure", "2026-10", _USAGE, 7, "rejected", "too_many_decimals", "BilledCost", _prints(_TOO_FINE)),
    Flaw("acme", "azure", "2026-10", _USAGE, 11, "rejected", "unknown_value", "ChargeCategory", _prints("Rebate")),
    Flaw("acme", "azure", "2026-10", _USAGE, 17, "rejected", "ragged_line"),
    Flaw("globex", "azure", "2026-10", _USAGE, 21, "rejected", "not_a_number", "EffectiveCost", _prints("1.234,56")),
    Flaw("globex", "aws", "2026-09", _CUR_USAGE, 4, "rejected", "not_a_number", "lineItem/UnblendedCost",
         _prints("N/A")),
    Flaw("globex", "aws", "2026-09", _CUR_USAGE, 12, "rejected", "too_many_decimals", "lineItem/UnblendedCost",
         _prints(_TOO_FINE)),
    Flaw("globex", "aws", "2026-10", _CUR_USAGE, 6, "rejected", "invalid_date", "lineItem/UsageStartDate",
         _prints("2026-10-32T00:00:00.000Z")),
    Flaw("globex", "aws", "2026-10", _CUR_USAGE, 15, "rejected", "ragged_line"),
    Flaw("globex", "gcp", "2026-09", _USAGE, 30, "rejected", "invalid_date", "ChargePeriodEnd",
         _prints("2026-09-31 00:00:00")),
    Flaw("globex", "gcp", "2026-10", _USAGE, 31, "rejected", "missing_value", "BilledCost", _prints(None)),
)  # fmt: skip

VIOLATIONS = (
    Flaw("acme", "aws", "2026-08", _USAGE, 60, "violation", "", "ListCost", lambda cost: cost + Decimal("0.01"), (
        ("ListCost-C-009-C", "The product of ListUnitPrice and PricingQuantity MUST match the ListCost when "
         "ListUnitPrice is not null, PricingQuantity is not null, and ChargeClass is not \"Correction\"."),
        ("ListUnitPrice-C-010-C", "The product of ListUnitPrice and PricingQuantity MUST match the ListCost when "
         "PricingQuantity is not null and ChargeClass is not \"Correction\"."),
    )),
    Flaw("acme", "aws", "2026-10", ("ChargeCategory", "Purchase"), 0, "violation", "", "EffectiveCost",
         lambda cost: cost + Decimal("12.5"), (
        ("EffectiveCost-C-005-C", "EffectiveCost MUST be 0 when ChargeCategory is \"Purchase\" and the purchase is "
         "intended to cover future eligible charges."),
    )),
    Flaw("acme", "gcp", "2026-09", ("CommitmentDiscountStatus", "Used"), 3, "violation", "",
         "CommitmentDiscountUnit", _prints(None), (
        ("CommitmentDiscountUnit-C-006-C", "CommitmentDiscountUnit MUST NOT be null when CommitmentDiscountQuantity "
         "is not null."),
    )),
    Flaw("acme", "azure", "2026-09", _USAGE, 30, "violation", "", "RegionName", _prints(None), (
        ("RegionName-C-005-C", "RegionName MUST NOT be null when RegionId is not null."),
    )),
    Flaw("globex", "gcp", "2026-08", _USAGE, 20, "violation", "", "SkuPriceId", _prints(None), (
        ("SkuPriceId-C-005-C", "SkuPriceId MUST NOT be null when ChargeCategory is \"Usage\" or \"Purchase\" and "
         "ChargeClass is not \"Correction\"."),
    )),
    Flaw("globex", "azure", "2026-08", ("ChargeCategory", "Tax"), 0, "violation", "", "PricingCategory",
         _prints("Other"), (
        ("PricingCategory-C-003-C", "PricingCategory MUST be null when ChargeCategory is \"Tax\"."),
    )),
)  # fmt: skip

NORMALISED = (
    Flaw("acme", "azure", "2026-08", _USAGE, 14, "normalised", "", "ChargeCategory", _prints("USAGE")),
    Flaw("acme", "azure", "2026-08", _USAGE, 15, "normalised", "", "ChargeFrequency", _prints("usage-based")),
    Flaw("acme", "gcp", "2026-10", _USAGE, 5, "normalised", "", "ChargeFrequency", _prints("usage-based")),
    Flaw("globex", "gcp", "2026-08", _USAGE, 8, "normalised", "", "PricingCategory", _prints("STANDARD")),
)

FLAWS = REJECTED + VIOLATIONS + NORMALISED
