package io.github.dqakeras

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.SplittableRandom
import java.util.zip.CRC32
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Damaged bytes give the declared exception, or are read; nothing else, ever. */
internal class MutationTest {
    private val random = SplittableRandom(1)
    private val extremes = byteArrayOf(0, 1, 0x7f, -1, -128)

    /** Changes 1 to 4 bytes from [from] until [until]. */
    private fun mutate(bytes: ByteArray, from: Int, until: Int) {
        repeat(1 + random.nextInt(4)) {
            val place = random.nextInt(from, until)
            bytes[place] = when (random.nextInt(3)) {
                0 -> random.nextInt(256).toByte()
                1 -> extremes[random.nextInt(extremes.size)]
                else -> (bytes[place].toInt() xor (1 shl random.nextInt(8))).toByte()
            }
        }
    }

    private fun refused(read: () -> Unit): Boolean =
        try {
            read()
            false
        } catch (_: DqaFormatException) {
            true
        }

    @Test
    fun `100,000 damaged files`() {
        val files = Exported.ALL.filter { "unet" in it.toString() }.map(Exported::bytes)
        var count = 0
        var refused = 0
        repeat(50_000) {
            for (file in files) {
                val residual = file.find("DQAR", near = "residual")
                val size = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getInt(residual + 8)
                val json = file.find("{\"format\"", near = "json")
                val bytes = file.clone()
                var end = bytes.size
                when (random.nextInt(5)) {
                    0 -> mutate(bytes, 0, minOf(bytes.size, 600)) // the root and lists
                    1 -> mutate(bytes, 0, bytes.size)
                    2 -> { // a table that its checksum does not give away
                        mutate(bytes, residual, residual + size - 4)
                        val crc = CRC32().apply { update(bytes, residual, size - 4) }.value
                        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putInt(residual + size - 4, crc.toInt())
                    }
                    3 -> mutate(bytes, json, minOf(bytes.size, json + 20_000))
                    else -> end = random.nextInt(bytes.size)
                }
                if (refused { DqaMetadata.read(ByteBuffer.wrap(bytes, 0, end)) }) refused += 1
                count += 1
            }
        }
        assertEquals(100_000, count)
        assertTrue(refused in 30_000..99_000, "$refused of $count were refused")
    }

    @Test
    fun `100,000 damaged blobs`() {
        val cases = Golden.ALL.filter { it.shape.fold(1, Int::times) < 2000 }
        var refused = 0
        repeat(100_000) {
            val case = cases[random.nextInt(cases.size)]
            val blob = case.bytes(listOf("raw", "residual", "all")[random.nextInt(3)])
            mutate(blob, 0, if (random.nextInt(2) == 0) minOf(blob.size, 40) else blob.size)
            if (refused { DqaCodec(case.table).codes(ByteBuffer.wrap(blob), case.shape) }) refused += 1
        }
        assertTrue(refused in 20_000..99_000, "$refused were refused")
    }

    private val places = HashMap<Pair<Int, String>, Int>()

    private fun ByteArray.find(text: String, near: String): Int =
        places.getOrPut(size to near) { find(text) }
}
