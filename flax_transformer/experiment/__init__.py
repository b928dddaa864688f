"""Experiments: everything from a config to a test score."""
