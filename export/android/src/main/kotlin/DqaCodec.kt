package io.github.dqakeras

import java.nio.ByteBuffer

/**
 * Reads packed activations of one layer, on any JVM: for tests and tools. FORMAT.md of
 * dqa_keras describes the bytes. What the app runs is the native code.
 *
 * @param table The layer's table, from [DqaMetadata.tables].
 */
public class DqaCodec(private val table: DqaTable) {
    private val baseCode = HuffmanCode(table.baseLengths)
    private val residualCode = HuffmanCode(table.residualLengths)
    private val importantChannels = table.important.count { it }

    /**
     * The values of a blob, channels last.
     *
     * @param shape Shape of the tensor with its batch axis.
     * @throws DqaFormatException If the blob breaks a rule of the format.
     */
    @Throws(DqaFormatException::class)
    public fun values(blob: ByteBuffer, shape: IntArray): FloatArray {
        val codes = codes(blob, shape)
        val sign = if (table.signed) -1 else 0xff
        return FloatArray(codes.size) {
            (codes[it].toInt() and sign).toFloat() * table.scale[it % table.channels]
        }
    }

    /**
     * The codes of a blob, a byte each: signed if the table is, otherwise unsigned.
     *
     * @param shape Shape of the tensor with its batch axis.
     * @throws DqaFormatException If the blob breaks a rule of the format.
     */
    @Throws(DqaFormatException::class)
    public fun codes(blob: ByteBuffer, shape: IntArray): ByteArray {
        require(shape.size >= 2 && shape.last() == table.channels && shape.all { it >= 1 }) {
            "shape must hold the batch and end in ${table.channels} channels. Received: ${shape.toList()}"
        }
        val values = shape.fold(1L) { product, side -> Math.multiplyExact(product, side.toLong()) }
        require(values <= Int.MAX_VALUE) { "a tensor must have fewer than 2^31 values. Received: $values" }
        val rows = if (shape.size == 2) shape[0] else shape[0] * shape[1]
        val rowPixels = (values / table.channels / rows).toInt()

        val reader = Reader(blob, "a blob")
        if (reader.u32() != MAGIC) throw DqaFormatException("a blob must start with DQAP")
        val version = reader.u8()
        if (version != 1) throw DqaFormatException("a blob has version $version, not 1: update the library")
        val storage = reader.u8()
        if (storage > ALL || reader.u16() != 0) {
            throw DqaFormatException("a blob's class must be 0..2 and be followed by zeros. Received: $storage")
        }
        val written = reader.u32()
        val stripRows = reader.u32()
        if (written != rows.toLong() || stripRows !in 1..written) {
            throw DqaFormatException(
                "a blob must have $rows rows, and 1 to as many in a strip. Received: $written and $stripRows",
            )
        }
        val strips = ((written + stripRows - 1) / stripRows).toInt()
        val directory = reader.take(4L * strips)
        val codes = ByteArray(values.toInt())
        var start = 0L
        for (strip in 0 until strips) {
            val end = directory.int.toLong() and 0xffffffffL
            if (end < start) throw DqaFormatException("a blob's directory must rise. Received: $end behind $start")
            val firstRow = strip * stripRows.toInt()
            val pixels = minOf(stripRows.toInt(), rows - firstRow) * rowPixels
            val data = reader.take(end - start)
            unpack(storage, data, codes, firstRow * rowPixels * table.channels, pixels)
            start = end
        }
        if (reader.left != 0) throw DqaFormatException("a blob is oversized: ${reader.left} bytes are left")
        return codes
    }

    private fun unpack(storage: Int, strip: ByteBuffer, codes: ByteArray, first: Int, pixels: Int) {
        val sections = Sections(ByteArray(strip.remaining()).also(strip::get))
        val base = sections.read(storage == ALL, baseCode, table.bits, pixels * table.channels)
        val residual = sections.read(storage != RAW, residualCode, table.extraBits, pixels * importantChannels)
        sections.finish()
        var next = 0
        for (index in base.indices) {
            val important = table.important[index % table.channels]
            var code = base[index].toInt() and 0xff
            var width = table.bits
            if (important && table.extraBits > 0) {
                code = (code shl table.extraBits) or residual[next++].toInt()
                width += table.extraBits
            }
            // The highest codes lie below 0.
            val negative = table.zeroPoint shl width - table.bits
            if (code >= (1 shl width) - negative) code -= 1 shl width
            codes[first + index] = code.toByte()
        }
    }

    private companion object {
        const val MAGIC = 0x50415144L // "DQAP", little-endian
        const val RAW = 0
        const val ALL = 2
    }
}

/** The bytes of one strip: its base symbols, then its residual symbols. */
private class Sections(private val data: ByteArray) {
    private var position = 0

    /** The next [count] symbols of [width] bits, as blocks or as one plane. */
    fun read(blocks: Boolean, code: HuffmanCode, width: Int, count: Int): ByteArray {
        if (width == 0 || count == 0) return ByteArray(0)
        val symbols = ByteArray(count)
        if (!blocks) {
            plane(symbols, 0, count, width)
            return symbols
        }
        for (first in 0 until count step BLOCK) {
            block(symbols, first, minOf(BLOCK, count - first), code, width)
        }
        return symbols
    }

    fun finish() {
        if (position != data.size) {
            throw DqaFormatException("a strip's sections must fill it. Received: $position of ${data.size} bytes")
        }
    }

    private fun take(size: Long): Int {
        if (size > data.size - position) throw DqaFormatException("a strip is truncated")
        return position.also { position += size.toInt() }
    }

    private fun plane(symbols: ByteArray, first: Int, count: Int, width: Int) {
        val start = take(planeBytes(count, width))
        for (index in 0 until count) {
            val bit = index.toLong() * width
            val byte = start + (bit / 8).toInt()
            var bits = data[byte].toInt() and 0xff
            if (byte + 1 < data.size) bits = bits or (data[byte + 1].toInt() and 0xff shl 8)
            symbols[first + index] = (bits shr (bit % 8).toInt() and ((1 shl width) - 1)).toByte()
        }
    }

    private fun block(symbols: ByteArray, first: Int, count: Int, code: HuffmanCode, width: Int) {
        val streams = if (count >= MANY) 4 else 1
        val leading = u16()
        if (leading == 0) {
            plane(symbols, first, count, width)
            return
        }
        val sizes = IntArray(streams) { if (it == 0) leading else u16() }
        if (sizes.any { it == 0 }) throw DqaFormatException("a stream must have at least 1 byte")
        if (2 * streams + sizes.sum() >= 2 + planeBytes(count, width)) {
            throw DqaFormatException("a coded block must be smaller than a raw one")
        }
        val group = if (streams == 4) 8 * ((count + 31) / 32) else count
        for (stream in 0 until streams) {
            val start = take(sizes[stream].toLong())
            val size = if (stream == streams - 1) count - group * stream else group
            code.decode(data, start, position, symbols, first + group * stream, size)
        }
    }

    private fun u16(): Int {
        val start = take(2)
        return (data[start].toInt() and 0xff) or (data[start + 1].toInt() and 0xff shl 8)
    }

    private fun planeBytes(count: Int, width: Int) = (count.toLong() * width + 7) / 8

    private companion object {
        const val BLOCK = 16384
        const val MANY = 256
    }
}
