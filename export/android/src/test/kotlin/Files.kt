package io.github.dqakeras

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

internal fun property(name: String) = File(System.getProperty(name))

/** A model that `make_models.py` exported, with an image and LiteRT's answer to it. */
internal class Exported(private val model: String, val mode: String) {
    private val folder = property("work").resolve("models/${model}_$mode")

    val file: File = folder.resolve("src/main/assets/$model.tflite")

    val bytes: ByteArray = file.readBytes()

    val pixels: IntArray = folder.resolve("image.bin").readBytes().let { rgb ->
        IntArray(rgb.size / 3) { pixel ->
            (0..2).fold(0xff) { packed, channel -> packed shl 8 or (rgb[3 * pixel + channel].toInt() and 0xff) }
        }
    }

    val scores: FloatArray = folder.resolve("scores.bin").readBytes().let { bytes ->
        val floats = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        FloatArray(floats.remaining(), floats::get)
    }

    override fun toString() = "$model, $mode"

    companion object {
        val ALL = listOf("resnet32", "mobilenet_v2", "unet").flatMap { model ->
            listOf("builtin", "packed").map { Exported(model, it) }
        }
    }
}

internal fun direct(bytes: ByteArray): ByteBuffer =
    ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).apply { put(bytes).rewind() }

/** Where a text first occurs. */
internal fun ByteArray.find(text: String): Int =
    (0..size - text.length).first { start -> text.indices.all { this[start + it] == text[it].code.toByte() } }

/** A tensor of tests/golden. */
internal class Golden(private val folder: File) {
    private val fields = folder.resolve("table.txt").readLines().associate { line ->
        line.split(" ").let { it[0] to it.drop(1) }
    }

    private fun ints(name: String) = fields.getValue(name).map(String::toInt).toIntArray()

    val shape = ints("shape")

    val table = DqaTable(
        name = folder.name,
        bits = ints("bits")[0],
        extraBits = ints("extra_bits")[0],
        zeroPoint = ints("signed")[0].let { if (it == 1) 1 shl ints("bits")[0] - 1 else maxOf(it - 1, 0) },
        shape = shape.drop(1).toIntArray(),
        important = ints("mask").map { it == 1 }.toBooleanArray(),
        scale = fields.getValue("scale").map { Float.fromBits(it.toLong(16).toInt()) }.toFloatArray(),
        residualLengths = ints("residual_lengths"),
        baseLengths = ints("base_lengths"),
    )

    fun bytes(name: String): ByteArray = folder.resolve("$name.bin").readBytes()

    override fun toString(): String = folder.name

    companion object {
        val ALL = property("golden").listFiles()!!.filter { it.resolve("table.txt").exists() }.sorted().map(::Golden)
    }
}

internal fun assertSame(expected: DqaTable, found: DqaTable) {
    fun fields(table: DqaTable) = with(table) {
        listOf(
            name, bits, extraBits, zeroPoint, shape.toList(), important.toList(), scale.toList(),
            residualLengths.toList(), baseLengths.toList(),
        )
    }
    org.junit.jupiter.api.Assertions.assertEquals(fields(expected), fields(found))
}
