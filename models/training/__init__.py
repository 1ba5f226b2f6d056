"""Train models: settings, plan, batches, epochs, resumable state, calibration."""
