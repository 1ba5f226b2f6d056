"""Results on disk and as pages."""
