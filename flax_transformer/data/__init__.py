"""Sentence pairs and texts, tokenizers and the input pipeline."""
