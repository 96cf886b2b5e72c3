package dev.edgesdk.edgemodel

import java.math.BigInteger
import java.security.MessageDigest

/**
 * Verification of Ed25519 signatures (RFC 8032), which Android itself has from API 33 on. Nothing here is secret, so
 * nothing has to take the same time. Points are kept as x = X/Z, y = Y/Z and x*y = T/Z.
 */
internal object Ed25519 {
    private val ONE = BigInteger.ONE
    private val TWO = BigInteger.valueOf(2)
    private val P = TWO.pow(255) - BigInteger.valueOf(19)
    private val ORDER = TWO.pow(252) + BigInteger("27742317777372353535851937790883648493")
    private val D = BigInteger.valueOf(-121665) * BigInteger.valueOf(121666).modInverse(P) % P
    private val ROOT_OF_MINUS_ONE = TWO.modPow((P - ONE) / BigInteger.valueOf(4), P)
    private val BASE = point(BigInteger.valueOf(4) * BigInteger.valueOf(5).modInverse(P) % P, odd = false)!!

    private class Point(val x: BigInteger, val y: BigInteger, val z: BigInteger, val t: BigInteger)

    /** Whether the owner of a public [key] of 32 bytes made this [signature] of 64 bytes for [message]. */
    fun verify(key: ByteArray, signature: ByteArray, message: ByteArray): Boolean {
        if (key.size != 32 || signature.size != 64) return false
        val owner = decoded(key) ?: return false
        val factor = number(signature.copyOfRange(32, 64))
        if (factor >= ORDER) return false
        val hash = MessageDigest.getInstance("SHA-512").digest(signature.copyOf(32) + key + message)
        val negative = Point(P - owner.x, owner.y, owner.z, P - owner.t)
        val difference = sum(times(factor, BASE), times(number(hash).mod(ORDER), negative))
        return encoded(difference) == number(signature.copyOf(32))
    }

    private fun number(littleEndian: ByteArray) = BigInteger(1, littleEndian.reversedArray())

    /** The point that 32 bytes stand for; null where they stand for none, or are not the one way to write it. */
    private fun decoded(bytes: ByteArray): Point? {
        val whole = number(bytes)
        val y = whole.clearBit(255)
        return if (y >= P) null else point(y, odd = whole.testBit(255))
    }

    /** The point with this [y] of the curve -x^2 + y^2 = 1 + d x^2 y^2, and the x that is odd or even. */
    private fun point(y: BigInteger, odd: Boolean): Point? {
        val square = ((y * y - ONE) * (D * y * y + ONE).modInverse(P)).mod(P)
        var x = square.modPow((P + BigInteger.valueOf(3)) / BigInteger.valueOf(8), P)
        if ((x * x).mod(P) != square) x = (x * ROOT_OF_MINUS_ONE).mod(P)
        if ((x * x).mod(P) != square || (x.signum() == 0 && odd)) return null
        if (x.testBit(0) != odd) x = P - x
        return Point(x, y, ONE, (x * y).mod(P))
    }

    private fun encoded(point: Point): BigInteger {
        val shrink = point.z.modInverse(P)
        val y = (point.y * shrink).mod(P)
        return if ((point.x * shrink).mod(P).testBit(0)) y.setBit(255) else y
    }

    private fun sum(one: Point, other: Point): Point {
        val a = (one.y - one.x) * (other.y - other.x)
        val b = (one.y + one.x) * (other.y + other.x)
        val c = TWO * D * one.t.multiply(other.t).mod(P)
        val d = TWO * one.z * other.z
        val e = (b - a).mod(P)
        val f = (d - c).mod(P)
        val g = (d + c).mod(P)
        val h = (b + a).mod(P)
        return Point((e * f).mod(P), (g * h).mod(P), (f * g).mod(P), (e * h).mod(P))
    }

    private fun times(factor: BigInteger, point: Point): Point {
        var result = Point(BigInteger.ZERO, ONE, ONE, BigInteger.ZERO)
        for (bit in factor.bitLength() - 1 downTo 0) {
            result = sum(result, result)
            if (factor.testBit(bit)) result = sum(result, point)
        }
        return result
    }
}
