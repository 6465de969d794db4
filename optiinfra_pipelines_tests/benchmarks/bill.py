"""The bill that the benchmarks load: one month of an AWS FOCUS 1.2 export, of any number of rows, the same each time.

Values are hashes of the row's number, so rows stand in no order that compresses or loads well: 50,000 resources with
tags of their own, thousands of prices, amounts of ten decimals as doubles, of which real bills print a third below
0.0001; a fifth covered by a savings plan, one row in a hundred a tax or a credit.
"""

from collections.abc import Mapping
from pathlib import Path

import duckdb

MONTH = "2026-10"
ROWS_PER_FILE = {"parquet": 1_000_000, "csv.gz": 250_000}  # several files of each, so that any reader can use all cores
_RESOURCES = 50_000

_LINE = f"""
SELECT draw(n) % {_RESOURCES} AS resource, draw(n + 11) AS chance, draw(n + 12) % 744 AS hour,
    round(1e-8 * (draw(n + 13) % 100000000), 8) AS fraction
FROM range($first, $last) AS line(n)
"""
# An application runs in one account per environment and in two regions, on any service.
_RESOURCE = """
SELECT *, draw(resource + 21) % 12 AS service, draw(resource + 22) % 40 AS application,
    draw(resource + 23) % 3 AS environment, draw(resource + 24) % 2 AS place_of_two, draw(resource + 25) % 3000 AS sku,
    CASE WHEN chance % 200 = 0 THEN 'Tax' WHEN chance % 200 = 1 THEN 'Credit' ELSE 'Usage' END AS category
FROM line
"""
# A quarter of the prices are per request: a millionth and less, as those of object stores and queues are.
_PRICED = """
SELECT *, category = 'Usage' AS usage, category = 'Usage' AND chance % 5 = 0 AS covered,
    3 * application + environment AS account, (application + 3 * place_of_two) % 8 AS region,
    CASE WHEN chance % 3 = 0 THEN 1.0 ELSE fraction END AS quantity,
    CASE WHEN service % 4 = 1 THEN round(1e-9 * (100 + draw(sku + 31) % 9900), 9)
        ELSE round(1e-6 * (1000 + draw(sku + 31) % 9000000), 6) END AS price
FROM resource
"""
_COSTED = """
SELECT *, CASE WHEN category = 'Credit' THEN -round(fraction, 10) WHEN category = 'Tax' THEN round(fraction / 10, 10)
        ELSE round(quantity * price * 0.93, 10) END AS contracted, round(quantity * price, 10) AS list,
    [ 'Amazon Elastic Compute Cloud', 'Amazon Simple Storage Service', 'Amazon Relational Database Service',
      'AWS Lambda', 'Amazon Simple Queue Service', 'Amazon SageMaker', 'Amazon Bedrock', 'Amazon Virtual Private Cloud',
      'Amazon DynamoDB', 'AmazonCloudWatch', 'Amazon Elastic Container Service', 'AWS Glue' ][service + 1] AS name,
    [ 'Compute', 'Storage', 'Databases', 'Compute', 'Integration', 'AI and Machine Learning', 'AI and Machine Learning',
      'Networking', 'Databases', 'Management and Governance', 'Compute', 'Analytics' ][service + 1] AS kind,
    [ 'us-east-1', 'us-east-2', 'us-west-2', 'eu-west-1', 'eu-central-1', 'ap-southeast-1', 'ap-northeast-1',
      'sa-east-1' ][region + 1] AS place, 100000000000 + account AS account_id,
    TIMESTAMP '2026-10-01' + to_hours(CAST(hour AS INTEGER)) AS began
FROM priced
"""
_COLUMNS = """
    CASE WHEN service % 3 = 0 THEN place || chr(CAST(97 + resource % 3 AS INTEGER)) END AS AvailabilityZone,
    CASE WHEN covered THEN 0.0 ELSE contracted END AS BilledCost,
    '123456789012' AS BillingAccountId, 'Acme' AS BillingAccountName, 'BillingAccount' AS BillingAccountType,
    'USD' AS BillingCurrency, TIMESTAMP '2026-11-01' AS BillingPeriodEnd, TIMESTAMP '2026-10-01' AS BillingPeriodStart,
    CAST(NULL AS VARCHAR) AS CapacityReservationId, CAST(NULL AS VARCHAR) AS CapacityReservationStatus,
    category AS ChargeCategory, CAST(NULL AS VARCHAR) AS ChargeClass,
    CASE WHEN usage THEN '$' || price || ' per unit of ' || name || ' in ' || place || ', SKU ' || sku
        ELSE category || ' for account ' || account_id END AS ChargeDescription,
    CASE WHEN usage THEN 'Usage-Based' ELSE 'One-Time' END AS ChargeFrequency,
    began + INTERVAL 1 HOUR AS ChargePeriodEnd, began AS ChargePeriodStart,
    CASE WHEN covered THEN 'Spend' END AS CommitmentDiscountCategory,
    CASE WHEN covered THEN 'arn:aws:savingsplans::123456789012:savingsplan/' || md5(CAST(account AS VARCHAR))
        END AS CommitmentDiscountId,
    CAST(NULL AS VARCHAR) AS CommitmentDiscountName, CASE WHEN covered THEN round(contracted * 0.7, 10)
        END AS CommitmentDiscountQuantity, CASE WHEN covered THEN 'Used' END AS CommitmentDiscountStatus,
    CASE WHEN covered THEN 'Compute Savings Plan' END AS CommitmentDiscountType,
    CASE WHEN covered THEN 'USD' END AS CommitmentDiscountUnit,
    CASE WHEN usage THEN quantity END AS ConsumedQuantity, CASE WHEN usage THEN 'Hours' END AS ConsumedUnit,
    contracted AS ContractedCost, CASE WHEN usage THEN round(price * 0.93, 10) END AS ContractedUnitPrice,
    CASE WHEN covered THEN round(contracted * 0.7, 10) ELSE contracted END AS EffectiveCost,
    'EUINAWS26-' || (400000 + account % 7) AS InvoiceId, 'Amazon Web Services, Inc.' AS InvoiceIssuerName,
    CASE WHEN usage THEN list ELSE contracted END AS ListCost, CASE WHEN usage THEN price END AS ListUnitPrice,
    CASE WHEN usage THEN CASE WHEN covered THEN 'Committed' ELSE 'Standard' END END AS PricingCategory,
    'USD' AS PricingCurrency,
    CASE WHEN usage THEN round(price * 0.93, 10) END AS PricingCurrencyContractedUnitPrice,
    CASE WHEN covered THEN round(contracted * 0.7, 10) ELSE contracted END AS PricingCurrencyEffectiveCost,
    CASE WHEN usage THEN price END AS PricingCurrencyListUnitPrice,
    CASE WHEN usage THEN quantity END AS PricingQuantity, CASE WHEN usage THEN 'Hrs' END AS PricingUnit,
    'AWS' AS ProviderName, 'AWS' AS PublisherName,
    CASE WHEN usage THEN place END AS RegionId, CASE WHEN usage THEN upper(place) END AS RegionName,
    CASE WHEN usage THEN 'arn:aws:service:' || place || ':' || account_id || ':instance/i-'
        || substr(md5(CAST(resource AS VARCHAR)), 1, 17) END AS ResourceId,
    CASE WHEN usage AND resource % 3 > 0 THEN 'node-' || resource END AS ResourceName,
    CASE WHEN usage THEN 'instance' END AS ResourceType,
    kind AS ServiceCategory, name AS ServiceName, CAST(NULL AS VARCHAR) AS ServiceSubcategory,
    CASE WHEN usage THEN upper(substr(md5(CAST(sku AS VARCHAR)), 1, 16)) END AS SkuId,
    CASE WHEN usage THEN 'Usage of ' || (sku % 90) END AS SkuMeter,
    CASE WHEN usage THEN '{"InstanceType":"m' || sku % 8 || '.' || sku % 13 || 'xlarge","CoreCount":' || sku % 96
        || ',"OperatingSystem":"Linux"}' END AS SkuPriceDetails,
    CASE WHEN usage THEN upper(substr(md5(CAST(sku AS VARCHAR)), 1, 16)) || '.JRTCKXETXF.6YS6EN2CT7' END AS SkuPriceId,
    CAST(account_id AS VARCHAR) AS SubAccountId, 'team-' || account AS SubAccountName, 'Account' AS SubAccountType,
    CASE WHEN usage AND resource % 7 > 0 THEN '{"application":"app-' || application || '","environment":"'
        || ['prod', 'staging', 'dev'][1 + environment] || '","Name":"node-' || resource || '","CostCenter":"'
        || account % 25 || '","aws:createdBy":"AssumedRole:AROA' || draw(resource) || '"}' END AS Tags,
    CASE WHEN covered THEN '{"negotiated":' || round(list - contracted, 10) || '}' ELSE '{}' END AS "x_Discounts",
    CASE WHEN usage THEN ['RunInstances', 'PutObject', 'Invoke', 'GetItem'][1 + sku % 4] END AS "x_Operation",
    replace(name, ' ', '') AS "x_ServiceCode"
"""
_BILL = (
    f"WITH line AS ({_LINE}), resource AS ({_RESOURCE}), priced AS ({_PRICED}), costed AS ({_COSTED})"
    f" SELECT {_COLUMNS} FROM costed"
)
_FORMATS = {
    "parquet": "FORMAT parquet, COMPRESSION snappy",
    "csv.gz": "FORMAT csv, COMPRESSION gzip, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ'",
}


def files_of(bill: str) -> Path:
    """The folder with the files of the bill in the folder `bill`, named after its month as AWS names it."""
    return Path(bill) / f"BILLING_PERIOD={MONTH}"


def write_bill(bill: str, rows: int, extension: str) -> Mapping[str, float]:
    """Task: write `rows` charges into the folder `bill` as files of `extension`, parquet or csv.gz; their bytes."""
    place = files_of(bill)
    place.mkdir(parents=True)
    step = ROWS_PER_FILE[extension]
    with duckdb.connect(config={"preserve_insertion_order": "false"}) as con:
        con.execute("SET enable_progress_bar = false")
        con.execute("CREATE MACRO draw(n) AS CAST(hash(n) >> 1 AS BIGINT)")
        for number, first in enumerate(range(0, rows, step), 1):
            file = place / f"acme-{number:05d}.{extension}"
            span = {"first": first, "last": min(first + step, rows)}
            con.execute(f"COPY ({_BILL}) TO '{file}' ({_FORMATS[extension]})", span)
    return {"bytes": sum(file.stat().st_size for file in place.iterdir())}
