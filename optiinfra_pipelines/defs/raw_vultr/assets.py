"""Raw tables of Vultr: bills by month; metrics, inventory, prices and LLM interactions by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

vultr_billing = billing_asset("vultr")
vultr_inventory = cloud_asset("vultr", "inventory")
vultr_llm_interactions = cloud_asset("vultr", "llm_interactions")
vultr_metrics = cloud_asset("vultr", "metrics")
vultr_prices = cloud_asset("vultr", "prices")
