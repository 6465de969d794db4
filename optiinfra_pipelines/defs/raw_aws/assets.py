"""Raw tables of AWS: bills by month; metrics, inventory, prices and LLM interactions by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

aws_billing = billing_asset("aws")
aws_inventory = cloud_asset("aws", "inventory")
aws_llm_interactions = cloud_asset("aws", "llm_interactions")
aws_metrics = cloud_asset("aws", "metrics")
aws_prices = cloud_asset("aws", "prices")
