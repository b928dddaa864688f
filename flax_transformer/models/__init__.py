"""Whole Transformers, their configs and presets."""
