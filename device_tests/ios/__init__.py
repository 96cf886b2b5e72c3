"""Swift on Linux, and doubles of what an iPhone has."""
