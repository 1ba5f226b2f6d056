"""Voice: acoustic features."""
