"""Everything Dagster sees, one folder a group, in the order data flows:

raw_aws, raw_focus -> operations -> derived -> alerts. raw_gcp, raw_azure and raw_vultr stand beside raw_aws once
their own APIs are collected; quality stands before derived once interactions are scored.
"""
