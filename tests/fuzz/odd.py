"""Odd values, and changes of bytes and of lines of text."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

#: Values of JSON that readers trip over: limits of machine numbers, other types, controls, other scripts, halves.
VALUES: tuple[object, ...] = (
    *(0, -1, 1, 2, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63)),
    *(0.0, -0.0, 0.5, -0.5, 1e-320, 1e30, 1e300, 1.7e308, float("inf"), float("-inf"), float("nan")),
    *(None, True, False, "", " ", "x", "0", "-1", "1e999", "nan", "\0", "\n", "\t", "\x1b[2J", "\u202e", "\ud800"),
    *("\u0663", "\u00b2", "\u00e9", "\U0001f600", "..", "../x", "/", "/etc/hostname", "a/b", "con:", "\\", "x" * 3000),
    *("{{ 1 }}", "{% for %}", "%s%n", "$(id)", "`id`", "'\"", "<b>", "(", "[", "*", "(a+)+$", "1" * 4400),
    *([], {}, [[]], [None], [0], ["x"], [1, 2, 3], {"": None}, {"x": 1}, [{}], {"type": "x"}),
)
#: Words that numbers, keys and ends of lines are replaced by.
WORDS = (
    *("", "-", "-1", "0", "00", "1e999", "nan", "inf", "0x10", "9" * 40, "\u0663", "\u00b2", "%", "@", "@end", "="),
    *("\0", "\t", "[", "]", "==>", "==> x <==", "/", "..", "kB", "*00000000", "\x1b[31m", "\ufffd", "a" * 300),
)
_LENGTHS = (0, 1, 2, 4, 8, 64, 1024)
_NUMBERS = (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_SCRAPS = (b"\0", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"{", b"[" * 300, b'"', b"-", b"9" * 24, b"\r\n", b"\xfe\xff")


def changed_bytes(random: Random, data: bytes, first: int = 0, last: int | None = None) -> bytes:
    """Bytes with a few changes between two offsets: flips, numbers, cuts, insertions, repeated pieces."""
    end = len(data) if last is None else min(last, len(data))
    head, middle, tail = data[:first], bytearray(data[first:end]), data[end:]
    for _ in range(random.choice((1, 1, 1, 2, 3, 8, 24))):
        at = random.randrange(len(middle) + 1)
        match random.randrange(7):
            case 0 if at < len(middle):
                middle[at] ^= 1 << random.randrange(8)
            case 1:
                middle[at : at + 1] = random.randbytes(1)
            case 2:
                number = random.choice(_NUMBERS)
                form = random.choice(["<I", ">I", "<Q", ">Q", "<H"])
                size = struct.calcsize(form)
                middle[at : at + size] = struct.pack(form, number % (1 << 8 * size))
            case 3:
                del middle[at : at + random.choice(_LENGTHS)]
            case 4:
                middle[at:at] = random.choice(_SCRAPS)
            case 5:
                source, count = random.randrange(len(middle) + 1), random.choice(_LENGTHS)
                middle[at : at + count] = middle[source : source + count]
            case _:
                if random.random() < 0.2:
                    return head + bytes(middle[:at])
    return head + bytes(middle) + tail


def changed_text(random: Random, text: str) -> bytes:
    """A text of lines with lines gone, doubled, moved and cut, and words replaced."""
    if random.random() < 0.2:
        return changed_bytes(random, text.encode("utf-8", "surrogatepass"))
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        at = random.randrange(len(lines))
        match random.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(at, random.choice(lines))
            case 2:
                lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
            case 3:
                lines[at] = random.choice(WORDS)
            case _:
                lines[at] = _changed_line(random, lines[at], lines)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _changed_line(random: Random, line: str, lines: Sequence[str]) -> str:
    separator = random.choice([each for each in " ,:=\t./" if each in line] or [" "])
    words = line.split(separator)
    others = random.choice(lines).split(separator)
    words[random.randrange(len(words))] = random.choice((*WORDS, *others))
    return separator.join(words)
