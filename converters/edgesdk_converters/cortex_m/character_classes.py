"""Letters, numbers and white space as the ``tokenizers`` library sees them, asked of the library itself.

Its regular expressions and its ``Digits`` step follow different versions of Unicode, and neither is Python's.
"""

from __future__ import annotations

from functools import cache

LETTER, NUMBER, SPACE, NUMERIC = 1, 2, 4, 8
_CODE_POINTS = 0x110000


@cache
def class_runs() -> tuple[tuple[int, int], ...]:
    """Runs of code points of one class: (first code point, class bits), ascending; the last one has no end.

    LETTER, NUMBER and SPACE are ``\\p{L}``, ``\\p{N}`` and ``\\s``; NUMERIC is what ``Digits`` takes.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    everything = [chr(code) for code in range(_CODE_POINTS) if not 0xD800 <= code < 0xE000]
    text = "".join(everything)
    bits = bytearray(_CODE_POINTS)
    for bit, others in ((LETTER, r"[^\p{L}]+"), (NUMBER, r"[^\p{N}]+"), (SPACE, r"\S+")):
        for character in normalizers.Replace(Regex(others), "").normalize_str(text):
            bits[ord(character)] |= bit
    digits = pre_tokenizers.Digits(individual_digits=True)
    for piece, _ in digits.pre_tokenize_str("x" + "x".join(everything)):
        if not piece.startswith("x"):
            bits[ord(piece)] |= NUMERIC
    runs = [(0, bits[0])]
    for code in range(1, _CODE_POINTS):
        if bits[code] != runs[-1][1]:
            runs.append((code, bits[code]))
    return tuple(runs)
