"""Pure functions and thin Linen modules that Transformers are made of."""
