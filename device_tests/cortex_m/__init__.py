"""Firmware of microcontroller bundles on emulated boards."""
