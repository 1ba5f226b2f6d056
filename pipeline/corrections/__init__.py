"""Corrections that people make of predictions: read, keep beside the predictions, bring together, measure agreement."""
