"""Train, measure and compare fusion models."""
