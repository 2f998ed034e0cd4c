package com.example.shop

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.robolectric.RuntimeEnvironment

/** The app that holds the `.aar`, and models and pictures among its assets. */
internal val app: Context get() = RuntimeEnvironment.getApplication()

/** What `make_models.py` wrote beside a model. */
internal class Exported(private val model: String, mode: String) {
    private val folder = File(System.getProperty("work"), "models/${model}_$mode")

    val asset = "$model.tflite"

    val bytes: ByteBuffer get() {
        val bytes = folder.resolve("src/main/assets/$asset").readBytes()
        return ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).apply { rewind() }
    }

    val file = folder.resolve("image.png")

    /** The picture as the framework decodes its file. */
    val picture: Bitmap get() = BitmapFactory.decodeFile(file.path)

    /** The number of the class that Keras gives the picture. */
    val classOfKeras: Int get() = folder.resolve("class.txt").readText().trim().toInt()
}
