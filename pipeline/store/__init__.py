"""Where results of stages are kept."""
