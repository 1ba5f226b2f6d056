"""Privacy: pseudonyms for names, words left out, faces blurred."""
