"""Checks of Google Cloud's raw tables."""

from optiinfra_pipelines.defs.billing_checks import billing_checks
from optiinfra_pipelines.defs.collection_checks import collection_checks
from optiinfra_pipelines.tables.billing import GCP_BILLING

gcp_billing_checks = billing_checks(GCP_BILLING)
gcp_collection_checks = collection_checks("gcp")
