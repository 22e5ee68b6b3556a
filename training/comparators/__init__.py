"""Rivals of a model on the same rows: published scores, and plain statistics; one file each."""
