"""What will run, in which order, and what runs it."""
