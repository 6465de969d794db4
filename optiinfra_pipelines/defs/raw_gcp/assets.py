"""Raw tables of Google Cloud: bills by month; metrics, inventory, prices and LLM interactions by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

gcp_billing = billing_asset("gcp")
gcp_inventory = cloud_asset("gcp", "inventory")
gcp_llm_interactions = cloud_asset("gcp", "llm_interactions")
gcp_metrics = cloud_asset("gcp", "metrics")
gcp_prices = cloud_asset("gcp", "prices")
