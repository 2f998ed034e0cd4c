package com.example.shop

import io.github.dqakeras.DqaClassifier
import io.github.dqakeras.DqaFile
import io.github.dqakeras.DqaMetadata
import java.io.IOException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner

/** Models among the assets of an installed app. */
@RunWith(RobolectricTestRunner::class)
internal class AssetsTest {
    private val exported = Exported("resnet32", "packed")

    @Test
    fun `an asset is mapped where it lies in the app`() {
        val mapped = DqaFile.map(app, exported.asset)
        assertEquals(exported.bytes, mapped)
        assertTrue(mapped.isDirect)
        assertEquals("resnet32", DqaMetadata.read(mapped).model)
    }

    @Test
    fun `the aar in an app gives the class that Keras gives`() {
        DqaClassifier(app, exported.asset).use {
            assertEquals(exported.classOfKeras, it.classify(exported.picture).first().index)
        }
    }

    @Test
    fun `an asset that is missing or compressed is named`() {
        for (name in listOf("none.tflite", "compressed.txt")) {
            val error = assertThrows(IOException::class.java) { DqaFile.map(app, name) }
            assertTrue("$error", name in error.message!!)
        }
    }
}
