package io.github.dqakeras

import kotlin.math.abs
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The helpers on a real interpreter, against what LiteRT gave in Python. */
internal class ModelTest {
    private fun scores(exported: Exported): FloatArray =
        ImageModel(direct(exported.bytes), 1).use { model ->
            val output = model.run(exported.pixels)
            FloatArray(output.remaining(), output::get)
        }

    private fun assertClose(exported: Exported, share: Double = 0.05) {
        val output = scores(exported)
        val range = exported.scores.maxOf(::abs)
        assertTrue(range > 0.01, "$exported reaches only $range")
        assertEquals(exported.scores.size, output.size)
        // A convolution's last bit may differ between versions, and flip a code.
        val difference = output.indices.maxOf { abs(output[it] - exported.scores[it]) }
        println("$exported: scores reach $range, the largest difference is $difference")
        assertTrue(difference < share * range, "$exported: $difference of $range")
    }

    @Test
    fun `packed models give what LiteRT gives in Python, to the bit`() {
        for (exported in Exported.ALL.filter { it.mode == "packed" }) {
            assertArrayEquals(exported.scores, scores(exported), "$exported")
        }
    }

    @Test
    fun `built-in models give it too`() {
        for (exported in Exported.ALL.filter { it.mode == "builtin" }) {
            // With random weights its 35 layers make much of one flipped code.
            assertClose(exported, if ("mobilenet" in "$exported") 0.5 else 0.05)
        }
    }

    @Test
    fun `inputs are normalised as the metadata says`() {
        val grey = Exported("grey", "builtin")
        val normalization = ImageModel(direct(grey.bytes), 1).use { it.metadata.normalization }
        assertNotNull(normalization)
        assertArrayEquals(floatArrayOf(120f), normalization!!.mean)
        assertArrayEquals(floatArrayOf(60f), normalization.std)
        assertClose(grey)
    }

    @Test
    fun `images go in as bytes where the model takes bytes`() {
        val bytes = Exported("bytes", "packed")
        assertEquals(DqaTensor.Type.UINT8, DqaMetadata.read(direct(bytes.bytes)).inputs.single().type)
        assertArrayEquals(bytes.scores, scores(bytes))
    }

    @Test
    fun `a classifier names the best class first`() {
        val exported = Exported("resnet32", "packed")
        DqaClassifier(direct(exported.bytes), threads = 2).use { classifier ->
            val classes = classifier.classify(exported.pixels)
            assertEquals(exported.scores.sortedDescending(), classes.map(DqaClass::score))
            assertEquals(exported.scores.indices.maxBy(exported.scores::get), classes.first().index)
            for (each in classes) {
                assertEquals(exported.scores[each.index], each.score)
                assertEquals(classifier.metadata.labels!![each.index], each.label)
            }
            val error = assertThrows(IllegalArgumentException::class.java) { classifier.classify(IntArray(5)) }
            assertTrue("32 x 32 pixels. Received: 5" in error.message!!, error.message)
        }
    }

    @Test
    fun `without labels a class is its number`() {
        val exported = Exported("mobilenet_v2", "packed")
        DqaClassifier(direct(exported.bytes)).use { classifier ->
            for (each in classifier.classify(exported.pixels)) assertEquals("${each.index}", each.label)
        }
    }

    @Test
    fun `a segmenter names the class of every pixel`() {
        val exported = Exported("unet", "packed")
        DqaSegmenter(direct(exported.bytes)).use { segmenter ->
            val map = segmenter.segment(exported.pixels)
            assertEquals(listOf(36, 48), listOf(map.height, map.width))
            for (pixel in map.classes.indices) {
                val scores = exported.scores.copyOfRange(11 * pixel, 11 * pixel + 11)
                assertEquals(scores.indices.maxBy(scores::get), map.classes[pixel])
            }
            assertEquals(map.labels[map.classes[48 * 5 + 7]], map.label(x = 7, y = 5))
            assertEquals("road", map.labels[2])
        }
    }

    @Test
    fun `a model of another kind is refused with the rule`() {
        fun refusal(open: () -> AutoCloseable): String =
            assertThrows(IllegalArgumentException::class.java) { open().close() }.message!!

        val classes = direct(Exported("resnet32", "builtin").bytes)
        val segments = direct(Exported("unet", "builtin").bytes)
        val depth = direct(Exported("depth", "builtin").bytes)
        assertTrue("must give 1 x classes" in refusal { DqaClassifier(segments) })
        assertTrue("must give 1 x height x width x classes" in refusal { DqaSegmenter(classes) })
        assertTrue("1 or 3 channels" in refusal { DqaClassifier(depth) })
    }
}
