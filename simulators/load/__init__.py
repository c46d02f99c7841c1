"""Load over the real network path."""
