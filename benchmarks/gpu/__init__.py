"""What the suite does on one GPU, in one go: see `python -m benchmarks.gpu --help`."""
