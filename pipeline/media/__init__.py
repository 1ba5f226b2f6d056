"""Streams of a media file: find, choose, decode."""
