"""LLM interactions: their parsers, redaction, the judge and its budget. No Dagster; statistics are in `quality/`."""
