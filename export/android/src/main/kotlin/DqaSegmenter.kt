package io.github.dqakeras

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.FloatBuffer

/**
 * The class of every pixel, row by row.
 *
 * @property labels Label of each class.
 */
public class DqaSegmentation internal constructor(
    public val height: Int,
    public val width: Int,
    public val classes: IntArray,
    public val labels: List<String>,
) {
    /** The label of one pixel. */
    public fun label(x: Int, y: Int): String = labels[classes[y * width + x]]
}

/**
 * Says what each pixel of an image shows. To be used by one thread at a time.
 *
 * @param model A `.tflite` that dqa_keras exported, built-in or packed, in a direct or
 *   mapped buffer.
 * @param threads Threads of the interpreter.
 * @throws DqaFormatException If the file is damaged or was not exported by dqa_keras.
 * @throws IllegalArgumentException If it is no model of one image that gives a map of
 *   scores, or the interpreter refuses it.
 */
public class DqaSegmenter @JvmOverloads
@Throws(DqaFormatException::class)
constructor(model: ByteBuffer, threads: Int = 1) : AutoCloseable {
    private val model = ImageModel(model, threads)
    private val labels: List<String>

    /** Opens an asset of the app. */
    @Throws(DqaFormatException::class)
    public constructor(context: Context, asset: String) : this(DqaFile.map(context, asset))

    init {
        val shape = this.model.outputShape
        if (shape.size != 4) {
            close()
            throw IllegalArgumentException(
                "a segmenter must give 1 x height x width x classes scores. Received: ${shape.toList()}",
            )
        }
        labels = List(shape[3], this.model::label)
    }

    /** What the file says about itself. */
    public val metadata: DqaMetadata get() = model.metadata

    /** The classes of a bitmap, which is scaled to the model's size. */
    public fun segment(bitmap: Bitmap): DqaSegmentation = best(model.run(bitmap))

    /** The classes of height x width pixels 0xAARRGGBB, row by row. */
    public fun segment(pixels: IntArray): DqaSegmentation = best(model.run(pixels))

    override fun close(): Unit = model.close()

    private fun best(scores: FloatBuffer): DqaSegmentation {
        val (_, height, width, count) = model.outputShape
        val classes = IntArray(height * width) { pixel ->
            var best = 0
            for (index in 1 until count) {
                if (scores[pixel * count + index] > scores[pixel * count + best]) best = index
            }
            best
        }
        return DqaSegmentation(height, width, classes, labels)
    }
}
