"""The gate at work: baselines and deployments from the warehouse, their verdicts, and what follows a REJECT. Plain
Python: the statistics are in `quality/`, assets and checks in `defs/quality`."""
