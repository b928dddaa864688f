"""Transformers in JAX and Flax: train them, decode with them, reuse their parts."""
