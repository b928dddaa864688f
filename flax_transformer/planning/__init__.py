"""What a training step will take on a given mesh of devices, before anything is allocated."""
