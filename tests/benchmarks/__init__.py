"""Speed and cost, measured: `python -m tests.benchmarks.NAME --json`."""
