"""Datasets of features and the batches that networks see."""
