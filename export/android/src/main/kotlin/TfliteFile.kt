package io.github.dqakeras

import com.google.flatbuffers.Table
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The parts of a `.tflite` that this library reads; numbers are places of fields in
 * LiteRT's schema.fbs.
 */
internal class TfliteFile(bytes: ByteBuffer) {
    private val model: Record

    init {
        val file = bytes.slice().order(ByteOrder.LITTLE_ENDIAN)
        if (file.remaining() < 8 || file.getInt(4) != IDENTIFIER) {
            throw DqaFormatException("it is not a .tflite file")
        }
        model = Record(file, file.getInt(0))
    }

    /** The buffer that `Model.metadata` lists under a name. */
    fun metadata(name: String): ByteBuffer? {
        val entry = model.records(6).firstOrNull { it.text(0) == name } ?: return null
        val buffers = model.records(4)
        val number = entry.int(1)
        if (number !in buffers.indices) {
            throw DqaFormatException("metadata $name points to buffer $number of ${buffers.size}")
        }
        return buffers[number].bytes(0)
    }

    /** Whether ops of this name are used. */
    fun hasCustomOp(name: String): Boolean = model.records(1).any { it.text(1) == name }

    fun inputs(): List<DqaTensor> = tensors(1)

    fun outputs(): List<DqaTensor> = tensors(2)

    private fun tensors(field: Int): List<DqaTensor> {
        val graph = model.records(2).firstOrNull() ?: throw DqaFormatException("it has no graph")
        val all = graph.records(0)
        return graph.ints(field).map { number ->
            if (number !in all.indices) throw DqaFormatException("there is no tensor $number in ${all.size}")
            val type = all[number].byte(1)
            DqaTensor(
                all[number].text(3).orEmpty(),
                all[number].ints(0),
                when (type) {
                    0 -> DqaTensor.Type.FLOAT32
                    3 -> DqaTensor.Type.UINT8
                    else -> DqaTensor.Type.OTHER
                },
            )
        }
    }

    private companion object {
        const val IDENTIFIER = 0x334c4654 // "TFL3", little-endian
    }
}

/** A FlatBuffers table, its vectors checked before anything is made of them. */
private class Record(buffer: ByteBuffer, position: Int) : Table() {
    init {
        __reset(position, buffer)
    }

    private fun place(field: Int): Int = __offset(4 + 2 * field)

    fun int(field: Int): Int = place(field).let { if (it == 0) 0 else bb.getInt(bb_pos + it) }

    fun byte(field: Int): Int = place(field).let { if (it == 0) 0 else bb.get(bb_pos + it).toInt() }

    fun ints(field: Int): IntArray = vector(field, 4) { start, size -> IntArray(size) { bb.getInt(start + 4 * it) } } ?: IntArray(0)

    fun text(field: Int): String? = bytes(field)?.text("a name")

    fun bytes(field: Int): ByteBuffer? = vector(field, 1) { start, size ->
        val whole = bb.duplicate()
        whole.position(start)
        whole.limit(start + size)
        whole.slice()
    }

    fun records(field: Int): List<Record> = vector(field, 4) { start, size ->
        List(size) { Record(bb, __indirect(start + 4 * it)) }
    } ?: emptyList()

    private fun <T> vector(field: Int, bytes: Int, make: (start: Int, size: Int) -> T): T? {
        val place = place(field)
        if (place == 0) return null
        val start = __vector(place)
        val size = __vector_len(place)
        if (start < 0 || size < 0 || size.toLong() * bytes > bb.limit().toLong() - start) {
            throw DqaFormatException("a list of $size reaches past the end of the file")
        }
        return make(start, size)
    }
}
