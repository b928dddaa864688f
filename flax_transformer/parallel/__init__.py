"""Arrays, models and processes spread over many devices."""
