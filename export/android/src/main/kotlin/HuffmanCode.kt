package io.github.dqakeras

/** A canonical Huffman code, read least significant bit first (RFC 1951, 3.2.2). */
internal class HuffmanCode(private val lengths: IntArray) {
    // By the next MAX_LENGTH bits of a stream: symbol times 16 plus length.
    private val lookup = IntArray(1 shl MAX_LENGTH)

    init {
        var code = 0
        for (length in 1..MAX_LENGTH) {
            for (symbol in lengths.indices) {
                if (lengths[symbol] != length) continue
                val first = Integer.reverse(code) ushr (32 - length)
                for (index in first until lookup.size step (1 shl length)) {
                    lookup[index] = symbol * 16 + length
                }
                code += 1
            }
            code = code shl 1
        }
    }

    /** Reads [count] symbols from bytes [start] until [end], which they must fill. */
    fun decode(data: ByteArray, start: Int, end: Int, symbols: ByteArray, first: Int, count: Int) {
        var bits = 0
        var held = 0
        var next = start
        for (index in first until first + count) {
            while (held < MAX_LENGTH) {
                // Behind the end come zeros; whoever needs them is found out below.
                if (next < end) bits = bits or (data[next].toInt() and 0xff shl held)
                next += 1
                held += 8
            }
            val entry = lookup[bits and (lookup.size - 1)]
            val length = entry and 15
            symbols[index] = (entry shr 4).toByte()
            bits = bits ushr length
            held -= length
        }
        if (next - held / 8 != end) {
            throw DqaFormatException("a stream's symbols must end in its last byte")
        }
    }

    companion object {
        const val MAX_LENGTH = 12

        /** Whether the lengths are those of a whole code; one symbol needs no bits. */
        fun isComplete(lengths: IntArray): Boolean =
            if (lengths.size == 1) {
                lengths[0] == 0
            } else {
                lengths.all { it in 1..MAX_LENGTH } &&
                    lengths.sumOf { 1 shl (MAX_LENGTH - it) } == 1 shl MAX_LENGTH
            }
    }
}
