package io.github.dqakeras

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.charset.CharacterCodingException

/** Takes little-endian values off bytes and never reads past their end. */
internal class Reader(bytes: ByteBuffer, private val what: String) {
    private val bytes = bytes.slice().order(ByteOrder.LITTLE_ENDIAN)

    val left: Int get() = bytes.remaining()

    /** The next [size] bytes by themselves. */
    fun take(size: Long): ByteBuffer {
        if (size > left) {
            throw DqaFormatException("$what ends early: $size bytes wanted, $left are left")
        }
        val taken = bytes.slice().order(ByteOrder.LITTLE_ENDIAN)
        taken.limit(size.toInt())
        bytes.position(bytes.position() + size.toInt())
        return taken
    }

    fun u8(): Int = take(1).get().toInt() and 0xff

    fun u16(): Int = take(2).short.toInt() and 0xffff

    fun u32(): Long = take(4).int.toLong() and 0xffffffffL

    fun bytes(size: Int): ByteArray = ByteArray(size).also(take(size.toLong())::get)

    fun text(size: Int): String = take(size.toLong()).text(what)
}

/** All bytes as UTF-8. */
internal fun ByteBuffer.text(what: String): String =
    try {
        Charsets.UTF_8.newDecoder().decode(this).toString()
    } catch (_: CharacterCodingException) {
        throw DqaFormatException("$what holds text that is not UTF-8")
    }
