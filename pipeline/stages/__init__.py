"""The stages between a source and its predictions, one file each; `table` lists them in order."""
