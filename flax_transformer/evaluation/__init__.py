"""Translation, continuation and classification of texts, and their scores."""
