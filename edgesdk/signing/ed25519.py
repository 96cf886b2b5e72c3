"""Verification of Ed25519 signatures (RFC 8032) in Python alone, for boards that have nothing else.

Nothing here is secret, so nothing has to take the same time. Signing, and verifying where the ``cryptography`` library
is installed, is that library's work. Points are kept as X, Y, Z, T with x = X/Z, y = Y/Z and x*y = T/Z.
"""

from __future__ import annotations

import hashlib

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int, int, int]


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is the one that the owner of ``key`` made of ``message``.

    Args:
        key: the public key, 32 bytes.
        signature: 64 bytes.
        message: what was signed.
    """
    if len(key) != 32 or len(signature) != 64:
        return False
    owner = _decoded(key)
    factor = int.from_bytes(signature[32:], "little")
    if owner is None or factor >= _ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % _ORDER
    x, y, z, t = owner
    difference = _sum(_times(factor, _BASE), _times(challenge, (_P - x, y, z, _P - t)))
    return _encoded(difference) == signature[:32]


def _decoded(data: bytes) -> Point | None:
    """The point that 32 bytes stand for; None where they stand for none, or are not the one way to write it."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    x = _x_of(y)
    if x is None or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _x_of(y: int) -> int | None:
    """One of the two x that the curve -x^2 + y^2 = 1 + d x^2 y^2 has at ``y``."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT_OF_MINUS_ONE % _P
    return x if x * x % _P == square else None


def _encoded(point: Point) -> bytes:
    x, y, z, _ = point
    shrink = pow(z, -1, _P)
    return (y * shrink % _P | (x * shrink % _P & 1) << 255).to_bytes(32, "little")


def _sum(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * _D * one[3] * other[3] % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(factor: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _sum(result, point)
        point = _sum(point, point)
        factor >>= 1
    return result


def _base() -> Point:
    y = 4 * pow(5, -1, _P) % _P
    x = _x_of(y)
    assert x is not None
    x = _P - x if x & 1 else x
    return x, y, 1, x * y % _P


_BASE = _base()
