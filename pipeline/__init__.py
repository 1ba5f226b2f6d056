"""What runs, in which order, on what: decoding, stages, weights, datasets, outputs and the command line."""
