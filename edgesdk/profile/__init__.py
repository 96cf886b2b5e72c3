"""Profiles: what a bundle costs on a device, in time, memory, heat and energy."""
