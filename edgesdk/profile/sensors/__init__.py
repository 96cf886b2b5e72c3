"""Sensors: one module for each kind, found by name."""
