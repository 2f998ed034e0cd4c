package io.github.dqakeras

import java.nio.ByteBuffer
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

internal class CodecTest {
    private val golden = Golden.ALL

    private fun decode(case: Golden, blob: ByteArray) = DqaCodec(case.table).codes(ByteBuffer.wrap(blob), case.shape)

    @Test
    fun `golden vectors decode to the byte`() {
        assertEquals(13, golden.size)
        for (case in golden) {
            for (storage in listOf("raw", "residual", "all")) {
                assertArrayEquals(case.bytes("codes"), decode(case, case.bytes(storage)), "$case, $storage")
            }
        }
    }

    @Test
    fun `values are codes times steps`() {
        for (case in golden) {
            val codes = case.bytes("codes")
            val values = DqaCodec(case.table).values(ByteBuffer.wrap(case.bytes("all")), case.shape)
            for ((index, value) in values.withIndex()) {
                val code = if (case.table.signed) codes[index].toInt() else codes[index].toInt() and 0xff
                assertEquals(code * case.table.scale[index % case.table.channels], value)
            }
        }
    }

    @Test
    fun `a blob that is cut short or goes on is refused`() {
        for (case in golden) {
            for (storage in listOf("raw", "residual", "all")) {
                val blob = case.bytes(storage)
                for (size in listOf(0, 3, 15, 16, blob.size / 2, blob.size - 1)) {
                    assertThrows(DqaFormatException::class.java) { decode(case, blob.copyOf(size)) }
                }
                assertThrows(DqaFormatException::class.java) { decode(case, blob + 0) }
            }
        }
    }

    @Test
    fun `each field of the header has its rule`() {
        val case = golden.first { it.toString() == "typical" }
        for ((place, rule) in mapOf(0 to "DQAP", 4 to "version", 5 to "class", 6 to "zeros", 8 to "rows", 12 to "rows", 16 to "")) {
            val blob = case.bytes("residual")
            blob[place] = (blob[place] + 100).toByte()
            val error = assertThrows(DqaFormatException::class.java) { decode(case, blob) }
            assertTrue(rule in error.message!!, error.message)
        }
    }

    @Test
    fun `another shape is the caller's mistake`() {
        val case = golden.first { it.toString() == "typical" }
        assertThrows(IllegalArgumentException::class.java) {
            DqaCodec(case.table).codes(ByteBuffer.wrap(case.bytes("raw")), intArrayOf(1, 6, 10, 15))
        }
        assertThrows(DqaFormatException::class.java) {
            DqaCodec(case.table).codes(ByteBuffer.wrap(case.bytes("raw")), intArrayOf(1, 5, 10, 16))
        }
    }
}
