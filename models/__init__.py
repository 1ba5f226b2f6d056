"""Features in, predictions out: networks, losses, training, metrics and checkpoints."""
