"""Trackers, one a file."""
