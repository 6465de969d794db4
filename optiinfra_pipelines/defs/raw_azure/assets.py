"""Raw tables of Azure: bills by month; metrics, inventory, prices and LLM interactions by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

azure_billing = billing_asset("azure")
azure_inventory = cloud_asset("azure", "inventory")
azure_llm_interactions = cloud_asset("azure", "llm_interactions")
azure_metrics = cloud_asset("azure", "metrics")
azure_prices = cloud_asset("azure", "prices")
