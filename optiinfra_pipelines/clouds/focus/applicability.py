"""Which applicability criteria of FOCUS each provider meets, with the reason for each. Data and one look-up.

A rule whose criteria a provider does not meet is not applicable to its rows. Where a declaration is wrong for a
customer, the rule runner takes another one by argument.
"""

from collections.abc import Mapping

SUPPORTED: Mapping[str, Mapping[str, str]] = {
    "aws": {
        "ACCOUNT_NAMING_SUPPORTED": "accounts have an alias and a name",
        "AVAILABILITY_ZONE_SUPPORTED": "most resources are placed in a zone such as us-east-1a",
        "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": "bills carry resource ARNs",
        "CAPACITY_RESERVATION_SUPPORTED": "On-Demand Capacity Reservations and Capacity Blocks",
        "COMMITMENT_DISCOUNT_SUPPORTED": "Reserved Instances and Savings Plans",
        "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": "on demand, spot and committed",
        "NEGOTIATED_PRICING_SUPPORTED": "Private Pricing Agreements",
        "PUBLIC_PRICE_LIST_SUPPORTED": "the Price List API is public",
        "REGION_SUPPORTED": "regions such as eu-central-1",
        "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": "an ARN names service and resource type",
        "SUB_ACCOUNT_SUPPORTED": "member accounts of an organization",
        "TAGGING_SUPPORTED": "cost allocation tags",
        "UNIT_PRICING_SUPPORTED": "each SKU has a rate per unit",
        "USAGE_MEASUREMENT_SUPPORTED": "usage is metered by usage type",
    },
    "azure": {
        "ACCOUNT_NAMING_SUPPORTED": "billing accounts and profiles have display names",
        "AVAILABILITY_ZONE_SUPPORTED": "zonal virtual machines and disks, although exports leave the column out",
        "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": "bills carry resource ids",
        "CAPACITY_RESERVATION_SUPPORTED": "on-demand capacity reservation groups",
        "COMMITMENT_DISCOUNT_SUPPORTED": "reservations and savings plans",
        "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": "billing profiles of an MCA, enrolments of an EA",
        "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": "on demand, spot and committed",
        "NEGOTIATED_PRICING_SUPPORTED": "price sheets of an EA or MCA",
        "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": "an MCA prices in USD and bills in the local currency",
        "PUBLIC_PRICE_LIST_SUPPORTED": "the Retail Prices API is public",
        "REGION_SUPPORTED": "regions such as westeurope",
        "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": "types such as microsoft.compute/virtualmachines",
        "SUB_ACCOUNT_SUPPORTED": "subscriptions",
        "TAGGING_SUPPORTED": "resource tags",
        "UNIT_PRICING_SUPPORTED": "each meter has a unit price",
        "USAGE_MEASUREMENT_SUPPORTED": "usage is metered",
    },
    "gcp": {
        "ACCOUNT_NAMING_SUPPORTED": "billing accounts have display names",
        "AVAILABILITY_ZONE_SUPPORTED": "zones such as europe-west1-b",
        "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": "the detailed export carries resource names",
        "CAPACITY_RESERVATION_SUPPORTED": "Compute Engine reservations",
        "COMMITMENT_DISCOUNT_SUPPORTED": "committed use discounts",
        "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": "on demand, spot and committed",
        "NEGOTIATED_PRICING_SUPPORTED": "custom prices of a contract",
        "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": "prices in USD, bills at a currency_conversion_rate",
        "PUBLIC_PRICE_LIST_SUPPORTED": "the Cloud Billing Catalog API is public",
        "REGION_SUPPORTED": "regions such as europe-west1",
        "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": "a global resource name names its collection",
        "SUB_ACCOUNT_SUPPORTED": "projects",
        "TAGGING_SUPPORTED": "labels and tags",
        "UNIT_PRICING_SUPPORTED": "each SKU has a rate per unit",
        "USAGE_MEASUREMENT_SUPPORTED": "usage is metered",
    },
    "vultr": {
        "ACCOUNT_NAMING_SUPPORTED": "an account has a name",
        "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": "each instance, volume and address is billed",
        "PUBLIC_PRICE_LIST_SUPPORTED": "the plans are public",
        "REGION_SUPPORTED": "regions such as ewr",
        "TAGGING_SUPPORTED": "instances have tags",
        "UNIT_PRICING_SUPPORTED": "an invoice item has a unit price",
        "USAGE_MEASUREMENT_SUPPORTED": "an invoice item has units",
    },
}

NOT_SUPPORTED: Mapping[str, Mapping[str, str]] = {
    "aws": {
        "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": "a payer account is the only kind",
        "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": "a member account is the only kind",
        "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": "a seller prices and bills in one currency",
        "VIRTUAL_CURRENCY_SUPPORTED": "prices are in money",
    },
    "azure": {
        "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": "a subscription is the only kind",
        "VIRTUAL_CURRENCY_SUPPORTED": "prices are in money",
    },
    "gcp": {
        "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": "bills do not tell kinds of billing accounts apart",
        "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": "a project is the only kind",
        "VIRTUAL_CURRENCY_SUPPORTED": "prices are in money",
    },
    "vultr": {
        "AVAILABILITY_ZONE_SUPPORTED": "a region has no zones",
        "CAPACITY_RESERVATION_SUPPORTED": "capacity cannot be reserved",
        "COMMITMENT_DISCOUNT_SUPPORTED": "the API and the invoices know no commitments",
        "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": "an account is the only kind",
        "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": "every charge is at the plan's price",
        "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": "there are no sub accounts on a bill",
        "NEGOTIATED_PRICING_SUPPORTED": "the API and the invoices know no negotiated prices",
        "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": "prices and bills are in USD",
        "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": "an invoice item names a product, not a resource of a type",
        "SUB_ACCOUNT_SUPPORTED": "there are no sub accounts on a bill",
        "VIRTUAL_CURRENCY_SUPPORTED": "prices are in money",
    },
}

# For a provider that is not declared: it supports what it delivers a column for.
_SHOWN_BY: Mapping[str, str] = {
    "ACCOUNT_NAMING_SUPPORTED": "BillingAccountName",
    "AVAILABILITY_ZONE_SUPPORTED": "AvailabilityZone",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": "ResourceId",
    "CAPACITY_RESERVATION_SUPPORTED": "CapacityReservationId",
    "COMMITMENT_DISCOUNT_SUPPORTED": "CommitmentDiscountId",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": "BillingAccountType",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": "PricingCategory",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": "SubAccountType",
    "NEGOTIATED_PRICING_SUPPORTED": "ContractedUnitPrice",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": "PricingCurrency",
    "PUBLIC_PRICE_LIST_SUPPORTED": "ListUnitPrice",
    "REGION_SUPPORTED": "RegionId",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": "ResourceType",
    "SUB_ACCOUNT_SUPPORTED": "SubAccountId",
    "TAGGING_SUPPORTED": "Tags",
    "UNIT_PRICING_SUPPORTED": "SkuId",
    "USAGE_MEASUREMENT_SUPPORTED": "ConsumedQuantity",
    "VIRTUAL_CURRENCY_SUPPORTED": "PricingCurrencyListUnitPrice",
}


def supported_criteria(provider: str, columns: frozenset[str] | None) -> frozenset[str]:
    """Criteria that `provider` meets. One that is not declared meets those for which its source has the column;
    none where the columns of its source are not known either."""
    if provider in SUPPORTED:
        return frozenset(SUPPORTED[provider])
    return frozenset(criterion for criterion, column in _SHOWN_BY.items() if column in (columns or ()))
