"""Checks of Azure's raw tables."""

from optiinfra_pipelines.defs.billing_checks import billing_checks
from optiinfra_pipelines.defs.collection_checks import collection_checks
from optiinfra_pipelines.tables.billing import AZURE_BILLING

azure_billing_checks = billing_checks(AZURE_BILLING)
azure_collection_checks = collection_checks("azure")
