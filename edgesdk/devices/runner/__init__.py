"""Runners: the programs on devices that run bundles, and the host's end of their protocol."""
