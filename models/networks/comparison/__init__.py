"""The models that EMOE is compared with, under the same interface, data and training loop."""
