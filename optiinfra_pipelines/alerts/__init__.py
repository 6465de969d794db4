"""Alerts: what they say (`message`), when they are due (`ledger`), how they travel (`notifier`). Plain Python: the
sensors that read Dagster's event log are in `defs/alerts`."""
