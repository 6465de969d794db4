"""Scores of LLM interactions: judged and measured, the calls of the judge, and how reliable the judge is."""
