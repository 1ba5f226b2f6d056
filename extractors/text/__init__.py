"""Text: vectors of words."""
