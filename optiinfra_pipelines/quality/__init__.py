"""Statistics of quality, pure: baselines, the gate, the monitor, comparisons and the control of the judge.

Scores in, verdicts with stated error rates out: no I/O, no clock. `policy.py` holds what a person may change,
`evidence.py` the bounds that gate and comparisons share, `calibration.py` the monitor's threshold. What asset checks
make of a verdict is outside.
"""
