"""Checks of Vultr's raw tables."""

from optiinfra_pipelines.defs.billing_checks import billing_checks
from optiinfra_pipelines.defs.collection_checks import collection_checks
from optiinfra_pipelines.tables.billing import VULTR_BILLING

vultr_billing_checks = billing_checks(VULTR_BILLING)
vultr_collection_checks = collection_checks("vultr")
