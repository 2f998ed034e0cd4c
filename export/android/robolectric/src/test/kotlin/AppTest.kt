package com.example.shop

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.drawable.BitmapDrawable
import android.media.ExifInterface
import android.net.Uri
import android.os.Looper
import android.provider.MediaStore
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import com.example.resnet32.packed.sampling
import io.github.dqakeras.DqaClassifier
import io.github.dqakeras.DqaSegmenter
import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController

/** The screens that `dqa export --android` writes. */
@RunWith(RobolectricTestRunner::class)
internal class AppTest {
    private val resnet = Exported("resnet32", "packed")
    private val unet = Exported("unet", "packed")

    private fun views(view: View): List<View> =
        listOf(view) + if (view is ViewGroup) (0 until view.childCount).flatMap { views(view.getChildAt(it)) } else listOf()

    private fun all(activity: Activity) = views(activity.window.decorView)

    private fun answer(activity: Activity) = all(activity).first { it is TextView && it !is Button } as TextView

    private fun shown(activity: Activity) =
        ((all(activity).single { it is ImageView } as ImageView).drawable as BitmapDrawable).bitmap

    private fun press(activity: Activity, name: String): Intent {
        all(activity).filterIsInstance<Button>().single { it.text == name }.performClick()
        return shadowOf(activity).nextStartedActivityForResult.intent
    }

    /** Waits for the worker. */
    private fun text(activity: Activity): String {
        repeat(600) {
            shadowOf(Looper.getMainLooper()).idle()
            if (answer(activity).text.toString() !in listOf("", "…")) return answer(activity).text.toString()
            Thread.sleep(50)
        }
        throw AssertionError("no answer came")
    }

    private fun <T : Activity> choose(screen: ActivityController<T>, file: File): String {
        val request = press(screen.get(), "Gallery")
        assertEquals(Intent.ACTION_GET_CONTENT, request.action)
        val answer = Intent().setData(Uri.fromFile(file))
        shadowOf(screen.get()).receiveResult(request, Activity.RESULT_OK, answer)
        return text(screen.get())
    }

    @Test
    fun `a picture from the gallery is classified, and again when the screen is turned`() {
        Robolectric.buildActivity(com.example.resnet32.packed.MainActivity::class.java).setup().use { screen ->
            val text = choose(screen, resnet.file)
            val best = DqaClassifier(resnet.bytes).use { it.classify(resnet.picture).first() }
            assertEquals(resnet.classOfKeras, best.index)
            assertTrue(text, text.startsWith("${best.label} ${best.score}, "))
            assertTrue(text, Regex("\n\\d+\\.\\d ms, \\d+ MiB of memory, \\d+ at most$") in text)
            assertTrue(shown(screen.get()).sameAs(resnet.picture))
            screen.recreate()
            assertEquals(text.lines().first(), text(screen.get()).lines().first())
        }
    }

    @Test
    fun `a picture is segmented, each class in a colour`() {
        Robolectric.buildActivity(com.example.unet.packed.MainActivity::class.java).setup().use { screen ->
            val text = choose(screen, unet.file)
            val map = DqaSegmenter(unet.bytes).use { it.segment(unet.picture) }
            val (largest, count) = map.classes.toList().groupingBy { it }.eachCount().maxBy { it.value }
            assertTrue(text, text.startsWith("${map.labels[largest]} ${100 * count / map.classes.size} %"))
            val painted = shown(screen.get())
            val colours = map.classes.indices.groupBy({ map.classes[it] }) { painted.getPixel(it % map.width, it / map.width) }
            assertTrue(colours.values.all { it.toSet().size == 1 })
            assertEquals(colours.size, colours.values.map { it.first() }.toSet().size)
        }
    }

    @Test
    fun `the camera is told where to write, and its picture is read from there`() {
        Robolectric.buildActivity(com.example.resnet32.packed.MainActivity::class.java).setup().use { screen ->
            val activity = screen.get()
            val request = press(activity, "Camera")
            assertEquals(MediaStore.ACTION_IMAGE_CAPTURE, request.action)
            assertTrue(request.flags and Intent.FLAG_GRANT_WRITE_URI_PERMISSION != 0)
            @Suppress("DEPRECATION")
            val place = request.getParcelableExtra<Uri>(MediaStore.EXTRA_OUTPUT)!!
            activity.contentResolver.openOutputStream(place)!!.use { out ->
                resnet.picture.compress(Bitmap.CompressFormat.PNG, 100, out)
            }
            shadowOf(activity).receiveResult(request, Activity.RESULT_OK, null)
            val best = DqaClassifier(resnet.bytes).use { it.classify(resnet.picture).first() }
            assertTrue(text(activity), text(activity).startsWith("${best.label} ${best.score}, "))
        }
    }

    @Test
    fun `a file that is no picture is said, and a choice that was not made changes nothing`() {
        Robolectric.buildActivity(com.example.resnet32.packed.MainActivity::class.java).setup().use { screen ->
            val file = File.createTempFile("none", ".png").apply { writeText("no picture") }
            assertTrue("no picture at" in choose(screen, file))
            val request = press(screen.get(), "Gallery")
            shadowOf(screen.get()).receiveResult(request, Activity.RESULT_CANCELED, null)
            assertTrue("no picture at" in text(screen.get()))
        }
    }

    @Test
    fun `a picture lies as the camera held it, and a large one is read in part`() {
        val jpeg = File.createTempFile("turned", ".jpg")
        val wide = Bitmap.createScaledBitmap(resnet.picture, 64, 32, true)
        jpeg.outputStream().use { wide.compress(Bitmap.CompressFormat.JPEG, 90, it) }
        ExifInterface(jpeg.path).apply {
            setAttribute(ExifInterface.TAG_ORIENTATION, "${ExifInterface.ORIENTATION_ROTATE_90}")
            saveAttributes()
        }
        val picture = com.example.resnet32.packed.readPicture(app.contentResolver, Uri.fromFile(jpeg))
        assertEquals(listOf(32, 64), listOf(picture.width, picture.height))
        assertEquals(wide.width, BitmapFactory.decodeFile(jpeg.path).width)
        assertEquals(listOf(1, 1, 2, 4), listOf(1, 1023, 1024, 2048).map { sampling(it, 4000) })
    }
}
