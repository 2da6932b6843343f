"""Measuring two installations against each other on this machine."""
