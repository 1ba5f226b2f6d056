"""Labelled datasets: read labels, write features."""
