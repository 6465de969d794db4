"""The raw table of FOCUS files of any provider."""

from optiinfra_pipelines.defs.billing import billing_asset

focus_billing = billing_asset("focus")
