"""Losses, optimizers, the training step, checkpoints and the loop."""
