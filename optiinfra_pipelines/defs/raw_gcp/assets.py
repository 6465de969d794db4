"""Raw tables of Google Cloud: bills by month; metrics, inventory and prices by day."""

from optiinfra_pipelines.defs.billing import billing_asset
from optiinfra_pipelines.defs.collection import cloud_asset

gcp_billing = billing_asset("gcp")
gcp_inventory = cloud_asset("gcp", "inventory")
gcp_metrics = cloud_asset("gcp", "metrics")
gcp_prices = cloud_asset("gcp", "prices")
