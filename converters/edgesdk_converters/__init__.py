"""The converters that come with edgesdk, one package for each runtime; the SDK finds them by entry point."""
