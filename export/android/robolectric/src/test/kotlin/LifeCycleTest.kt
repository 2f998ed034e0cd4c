package com.example.shop

import android.app.Activity
import android.os.Bundle
import io.github.dqakeras.DqaClass
import io.github.dqakeras.DqaClassifier
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotSame
import org.junit.Assert.assertThrows
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner

/** A screen that keeps a classifier while it is there. */
internal class ShopActivity : Activity() {
    lateinit var classifier: DqaClassifier

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        classifier = DqaClassifier(this, "resnet32.tflite")
    }

    override fun onDestroy() {
        classifier.close()
        super.onDestroy()
    }
}

@RunWith(RobolectricTestRunner::class)
internal class LifeCycleTest {
    private val exported = Exported("resnet32", "packed")

    private fun classes(activity: ShopActivity): List<DqaClass> = activity.classifier.classify(exported.picture)

    @Test
    fun `a screen that is turned, hidden and shown again gives the same`() {
        Robolectric.buildActivity(ShopActivity::class.java).setup().use { screen ->
            val first = screen.get()
            val expected = classes(first)
            screen.pause().stop().restart().start().resume()
            assertEquals(expected, classes(first))
            screen.recreate()
            assertNotSame(first, screen.get())
            assertEquals(expected, classes(screen.get()))
            assertThrows(IllegalStateException::class.java) { classes(first) }
        }
    }
}
