"""Every figure the project states, taken side by side in one run: ``python -m benchmarks``."""
