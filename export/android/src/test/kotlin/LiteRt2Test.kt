package io.github.dqakeras

import com.example.litert2.PackedModel
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The Kotlin and the C of docs/litert2.md, with LiteRT 2 of the Python wheel. */
internal class LiteRt2Test {
    private val exported = Exported("resnet32", "packed")

    private fun floats(count: Int): ByteBuffer =
        ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder())

    private fun image(exported: Exported): ByteBuffer = floats(3 * exported.pixels.size).apply {
        for (pixel in exported.pixels) {
            for (shift in listOf(16, 8, 0)) putFloat((pixel shr shift and 0xff).toFloat())
        }
    }

    private fun scores(exported: Exported, threads: Int): FloatArray =
        PackedModel(exported.file, threads).use { model ->
            val output = floats(exported.scores.size)
            model.run(image(exported), output)
            output.asFloatBuffer().let { FloatArray(it.remaining(), it::get) }
        }

    @Test
    fun `it gives what the interpreter gives, to the bit`() {
        for (exported in Exported.ALL.filter { it.mode == "packed" }) {
            for (threads in 1..2) assertArrayEquals(exported.scores, scores(exported, threads), "$exported")
        }
    }

    @Test
    fun `what does not run says why`() {
        fun message(run: () -> Unit) = assertThrows(IllegalStateException::class.java, run).message!!

        assertEquals("LiteRT cannot compile the model", message { PackedModel(File("none.tflite")) })
        PackedModel(exported.file).use { model ->
            val scores = floats(exported.scores.size)
            assertEquals("buffers must be direct ones", message { model.run(ByteBuffer.allocate(4), scores) })
            assertEquals("the input has another size", message { model.run(floats(1), scores) })
            assertEquals("the output has another size", message { model.run(image(exported), floats(1)) })
            val infinite = image(exported).apply { putFloat(0, Float.POSITIVE_INFINITY) }
            assertTrue("inputs must be finite" in message { model.run(infinite, scores) })
            model.close()
            assertEquals("the model is closed", message { model.run(image(exported), scores) })
        }
    }
}
