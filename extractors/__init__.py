"""Raw signal in, features out: face, voice, speech and text. Nothing here fetches, caches or draws progress."""
