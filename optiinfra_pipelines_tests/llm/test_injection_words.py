"""The words that a rule of the injection detector cannot do without: whatever trips the rule holds them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.llm.injection import _COMPILED, _may_trip, _simple


@pytest.mark.parametrize("name", _COMPILED)
def test_no_text_that_trips_a_rule_is_passed_over_for_lack_of_its_words(name: str) -> None:
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(_COMPILED[name]))
    def check(text: str) -> None:
        simple = _simple(text)
        assert _may_trip(name, simple) or not _COMPILED[name].search(simple)

    check()
