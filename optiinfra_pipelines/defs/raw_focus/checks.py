"""Checks of the raw FOCUS tables."""

from optiinfra_pipelines.defs.billing_checks import billing_checks
from optiinfra_pipelines.tables.billing import FOCUS_BILLING

focus_billing_checks = billing_checks(FOCUS_BILLING)
