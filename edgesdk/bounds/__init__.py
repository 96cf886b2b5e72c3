"""What may be asked of this machine by a file that nobody vouches for: how much is unpacked, read and opened of it."""

from __future__ import annotations
