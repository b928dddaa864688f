"""Checkpoints: what a run needs to go on, on disk, proved whole."""
