"""A small English to Portuguese grammar: lexicon, inflection, sentences."""
