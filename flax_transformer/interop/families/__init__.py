"""The families of public models, one a file."""
