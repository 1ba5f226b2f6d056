"""EGMF: gated experts that speak to a language model."""
