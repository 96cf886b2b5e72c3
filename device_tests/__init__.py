"""Checks against devices and emulated ones."""
