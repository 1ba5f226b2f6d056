"""A sample plugin of emopipe."""
