"""Search over a step function, and the binding of a model to it."""
