"""Fusion networks, their layers and losses."""
