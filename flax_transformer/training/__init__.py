"""Losses, optimizers, the training step and the loop."""
