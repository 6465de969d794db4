"""Everything Dagster sees, one folder a group, in the order data flows:

raw_aws, raw_gcp, raw_azure, raw_vultr, raw_focus -> operations -> derived -> alerts. quality stands before derived once
interactions are scored.
"""

import warnings

import dagster as dg

# Partitioned asset checks and loading a package's definitions are marked preview in 1.13; both are pinned and tested.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
