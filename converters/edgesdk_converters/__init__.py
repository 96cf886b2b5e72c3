"""The converters that come with edgesdk, one package for each runtime; the SDK finds them by entry point."""

from edgesdk.silence import keep_silent

keep_silent()  # before any of them imports its runtime
