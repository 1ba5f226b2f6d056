"""Evaluate, compare, ablate, diagnose and explain models."""
