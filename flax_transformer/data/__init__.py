"""Sentence pairs, tokenizers and the input pipeline."""
