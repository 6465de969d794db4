"""Prometheus: client (I/O), parser (pure), vocabulary (PromQL for each metric). For machines of any cloud."""
