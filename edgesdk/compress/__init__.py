"""Compression: passes from model to model, recipes that order them, and the quality they cost."""
