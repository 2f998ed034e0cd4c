package com.example.shop

import android.graphics.Bitmap
import android.graphics.Bitmap.Config
import android.graphics.Color
import io.github.dqakeras.DqaClass
import io.github.dqakeras.DqaClassifier
import kotlin.math.abs
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner

/** Bitmaps of every kind, in a model of 31 x 33 pixels that gives other scores for others. */
@RunWith(RobolectricTestRunner::class)
internal class BitmapTest {
    private val exported = Exported("odd", "packed")
    private val classifier = DqaClassifier(exported.bytes)

    @After fun close() = classifier.close()

    /** Pixels one by one, which does not depend on how rows lie. */
    private fun pixels(bitmap: Bitmap) =
        IntArray(bitmap.width * bitmap.height) { bitmap.getPixel(it % bitmap.width, it / bitmap.width) }

    private fun assertSame(expected: List<DqaClass>, bitmap: Bitmap) =
        assertEquals(expected, classifier.classify(bitmap))

    // Robolectric has no graphics processor, and its Skia no RGBA_1010102.
    private val configs = Config.values().toSet() - setOf(Config.ALPHA_8, Config.HARDWARE, Config.RGBA_1010102)

    @Test
    fun `every config with colours gives what its pixels give`() {
        val source = pixels(exported.picture)
        for (config in configs) {
            val bitmap = exported.picture.copy(config, false)
            assertEquals(config, bitmap.config)
            for ((pixel, original) in pixels(bitmap).zip(source.toList())) {
                for (shift in listOf(16, 8, 0)) {
                    assertTrue("$config", abs((pixel shr shift and 255) - (original shr shift and 255)) <= 17)
                }
            }
            assertSame(classifier.classify(pixels(bitmap)), bitmap)
        }
    }

    @Test
    fun `rows of odd length`() {
        for (config in configs) {
            for (width in listOf(1, 33, 35, 127)) {
                val bitmap = Bitmap.createScaledBitmap(exported.picture, width, 31, true).copy(config, true)
                val scaled = Bitmap.createScaledBitmap(bitmap, 33, 31, true)
                assertSame(classifier.classify(pixels(scaled)), bitmap)
            }
        }
    }

    @Test
    fun `a bitmap in more room than it needs, and a part of another`() {
        val roomy = Bitmap.createBitmap(70, 50, Config.ARGB_8888)
        roomy.reconfigure(33, 31, Config.ARGB_8888)
        roomy.setPixels(pixels(exported.picture), 0, 33, 0, 0, 33, 31)
        assertTrue(roomy.allocationByteCount > roomy.byteCount)
        assertSame(classifier.classify(exported.picture), roomy)

        val large = Bitmap.createBitmap(51, 47, Config.ARGB_8888)
        large.setPixels(pixels(exported.picture), 0, 33, 7, 5, 33, 31)
        assertSame(classifier.classify(exported.picture), Bitmap.createBitmap(large, 7, 5, 33, 31))
    }

    @Test
    fun `another picture has other scores`() {
        val turned = pixels(exported.picture).reversedArray()
        assertNotEquals(classifier.classify(exported.picture), classifier.classify(turned))
    }

    @Test
    fun `a bitmap without colours is refused`() {
        val error = assertThrows(IllegalArgumentException::class.java) {
            classifier.classify(Bitmap.createBitmap(33, 31, Config.ALPHA_8))
        }
        assertTrue(error.message, "must have colours" in error.message!!)
    }

    @Test
    fun `a recycled bitmap is refused`() {
        val recycled = Bitmap.createBitmap(5, 5, Config.ARGB_8888).apply { eraseColor(Color.RED); recycle() }
        val error = assertThrows(IllegalArgumentException::class.java) { classifier.classify(recycled) }
        assertTrue(error.message, "recycled" in error.message!!)
    }
}
