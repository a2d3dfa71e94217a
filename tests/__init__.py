"""Regular package, so that it comes before the `tests` that some distributions install."""
