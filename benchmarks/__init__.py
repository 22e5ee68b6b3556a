"""Speed and accuracy, measured beside peers: ``python -m benchmarks.NAME``."""
