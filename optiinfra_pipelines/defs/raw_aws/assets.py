"""Raw tables of AWS: bills by month; metrics, inventory and prices by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

aws_billing = billing_asset("aws")
aws_inventory = cloud_asset("aws", "inventory")
aws_metrics = cloud_asset("aws", "metrics")
aws_prices = cloud_asset("aws", "prices")
