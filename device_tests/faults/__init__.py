"""Devices that fail on purpose."""
