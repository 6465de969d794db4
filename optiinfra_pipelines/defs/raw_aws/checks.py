"""Checks of AWS's raw tables."""

from optiinfra_pipelines.defs.billing_checks import billing_checks
from optiinfra_pipelines.defs.collection_checks import collection_checks
from optiinfra_pipelines.tables.billing import AWS_BILLING

aws_billing_checks = billing_checks(AWS_BILLING)
aws_collection_checks = collection_checks("aws")
