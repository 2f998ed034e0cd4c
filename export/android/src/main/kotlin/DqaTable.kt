package io.github.dqakeras

import java.nio.ByteBuffer
import java.util.zip.CRC32

/**
 * One quantized activation, as it is stored.
 *
 * @property name Name of the quantizer layer.
 * @property bits Bits of a base code, 1..8.
 * @property extraBits Residual bits of important channels, 0..4.
 * @property signed Whether codes are signed.
 * @property zeroPoint How many of the 2^bits base codes lie below 0.
 * @property shape Shape without the batch axis, channels last; 0 where it is not known.
 * @property important One for each channel: whether it has residuals.
 * @property scale One for each channel: the step between codes.
 * @property residualLengths Bits of the Huffman codeword of each residual.
 * @property baseLengths Bits of the Huffman codeword of each base code modulo 2^bits.
 */
public class DqaTable internal constructor(
    public val name: String,
    public val bits: Int,
    public val extraBits: Int,
    public val zeroPoint: Int,
    public val shape: IntArray,
    public val important: BooleanArray,
    public val scale: FloatArray,
    public val residualLengths: IntArray,
    public val baseLengths: IntArray,
) {
    public val channels: Int get() = important.size
    public val signed: Boolean get() = zeroPoint > 0

    init {
        fun require(condition: Boolean, rule: () -> String) {
            if (!condition) throw DqaFormatException("table of layer '$name': ${rule()}")
        }
        require(bits in 1..8 && extraBits in 0..4 && bits + extraBits <= 8) {
            "bits must be in 1..8, extra_bits in 0..4 and their sum at most 8. " +
                "Received: bits=$bits, extra_bits=$extraBits"
        }
        val half = 1 shl bits - 1
        require(zeroPoint == 0 || zeroPoint == half || (zeroPoint < half && bits + extraBits < 8)) {
            "the zero point must be below half of the codes, and bits + extra_bits below 8. " +
                "Received: zero_point=$zeroPoint"
        }
        require(channels >= 1 && shape.isNotEmpty() && shape.last() == channels) {
            "shape must end in the number of channels. Received: ${shape.toList()}"
        }
        require(scale.size == channels && scale.all { it > 0 && it < Float.POSITIVE_INFINITY }) {
            "scale must hold one positive finite number per channel"
        }
        for ((lengths, width) in listOf(residualLengths to extraBits, baseLengths to bits)) {
            require(lengths.size == 1 shl width && HuffmanCode.isComplete(lengths)) {
                "codeword lengths must be 1..${HuffmanCode.MAX_LENGTH} and fill the code " +
                    "space exactly. Received: ${lengths.toList()}"
            }
        }
    }

    internal companion object {
        const val NAME = "DQA_RESIDUAL"
        private const val MAGIC = 0x52415144L // "DQAR", little-endian
        private const val VERSION = 2
        private const val HEADER = 12
        private const val CHECKSUM = 4

        /** The tables of a `DQA_RESIDUAL` buffer, in the order of the model. */
        fun readAll(data: ByteBuffer): List<DqaTable> {
            val header = Reader(data, NAME)
            if (header.u32() != MAGIC) throw DqaFormatException("$NAME must start with DQAR")
            val version = header.u16()
            if (version !in 1..VERSION) {
                throw DqaFormatException("$NAME has version $version, not 1 or $VERSION: update the library")
            }
            val count = header.u16()
            val size = header.u32()
            if (size < HEADER + CHECKSUM || size > data.remaining()) {
                throw DqaFormatException("$NAME says it is $size bytes long. Received: ${data.remaining()}")
            }
            val whole = Reader(data, NAME)
            val body = whole.bytes(size.toInt() - CHECKSUM)
            val crc = CRC32().apply { update(body, 0, body.size) }.value
            if (whole.u32() != crc) throw DqaFormatException("$NAME is damaged: its CRC-32 differs")
            val records = Reader(ByteBuffer.wrap(body, HEADER, body.size - HEADER), NAME)
            val tables = List(count) { readOne(records, version) }
            if (records.left != 0) {
                throw DqaFormatException("$NAME has ${records.left} bytes behind its last table")
            }
            tables.groupingBy(DqaTable::name).eachCount().forEach { (name, times) ->
                if (times > 1) throw DqaFormatException("$NAME: names must be unique. Received: '$name' $times times")
            }
            return tables
        }

        private fun readOne(reader: Reader, version: Int): DqaTable {
            val name = reader.text(reader.u16())
            val bits = reader.u8()
            val extraBits = reader.u8()
            val sign = reader.u8()
            val rank = reader.u8()
            if (bits > 8 || extraBits > 4 || (sign > 1 && version == 1) || rank < 1) {
                throw DqaFormatException(
                    "table of layer '$name': bits=$bits, extra_bits=$extraBits, sign=$sign, " +
                        "rank=$rank is not possible",
                )
            }
            val shape = IntArray(rank) {
                val side = reader.u32()
                if (side > Int.MAX_VALUE) {
                    throw DqaFormatException("table of layer '$name': a shape must not reach $side")
                }
                side.toInt()
            }
            val channels = shape.last()
            val mask = reader.take((channels + 7L) / 8)
            val scale = reader.take(4L * channels)
            return DqaTable(
                name, bits, extraBits, if (sign == 1) 1 shl bits - 1 else maxOf(sign - 1, 0), shape,
                important = BooleanArray(channels) { mask.get(it / 8).toInt() shr (it % 8) and 1 == 1 },
                scale = FloatArray(channels) { scale.getFloat(4 * it) },
                residualLengths = IntArray(1 shl extraBits) { reader.u8() },
                baseLengths = IntArray(1 shl bits) { reader.u8() },
            )
        }
    }
}
