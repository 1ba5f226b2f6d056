"""Published corpora by name: from the files as their authors hand them out to a labels table."""
