"""Checkpoints: loaded, saved, converted, inspected, imported, found by name."""
