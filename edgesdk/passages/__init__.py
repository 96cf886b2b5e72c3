"""The one place where text is sampled, cut and windowed, for calibration, sensitivity, parity, quality and perplexity.

A model reads text behind the tokenizer's prefix, a conversation behind what its template begins with; here is where
both are put there. In order of the data: :mod:`.prompts` and :mod:`.sampling` write text with a model (:mod:`.own`,
checked by :mod:`.loops`), :mod:`.cutting` cuts text of the user's; what comes out is a :class:`~.passage.Passage`, or
rows of ids to calibrate on.
"""

from __future__ import annotations
