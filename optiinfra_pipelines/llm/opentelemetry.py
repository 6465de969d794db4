"""Interactions that applications and servers trace with OpenTelemetry: the one entry for both places where traces lie.

How they are read is in `trace_files.py` and `otel_traces.py`; what they mean, in `otlp.py` and `genai.py`.
"""

from collections.abc import Iterator

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.llm.interaction import Found
from optiinfra_pipelines.llm.otel_traces import otel_traces_interactions
from optiinfra_pipelines.llm.trace_files import trace_interactions
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window


def opentelemetry_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every call of a model that began in `span`, each once, from a ClickHouse table or from files by the location.

    CollectionError where the place cannot be read.
    """
    if place.scheme == "clickhouse":
        return otel_traces_interactions(source, place, span)
    return trace_interactions(source, place, span)
