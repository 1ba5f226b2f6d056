"""Faces: landmarks, action units, tracks, and which face speaks."""
