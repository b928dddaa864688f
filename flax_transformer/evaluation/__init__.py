"""Translation of texts and its scores."""
