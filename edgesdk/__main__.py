"""``python -m edgesdk``."""

from .cli import main

main()
