"""Speed and cost, measured: `python -m tests.benchmarks.NAME --json`. Ratios and figures beside a calibration."""
