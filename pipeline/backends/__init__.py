"""Extractors by name, loaded with their weights."""
