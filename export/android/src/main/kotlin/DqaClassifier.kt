package io.github.dqakeras

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.FloatBuffer

/** One class of an image; the score is what the model gives: a logit or a probability. */
public data class DqaClass(val index: Int, val label: String, val score: Float)

/**
 * Says what an image shows. To be used by one thread at a time.
 *
 * @param model A `.tflite` that dqa_keras exported, built-in or packed, in a direct or
 *   mapped buffer.
 * @param threads Threads of the interpreter.
 * @throws DqaFormatException If the file is damaged or was not exported by dqa_keras.
 * @throws IllegalArgumentException If it is no model of one image that gives one row of
 *   scores, or the interpreter refuses it.
 */
public class DqaClassifier @JvmOverloads
@Throws(DqaFormatException::class)
constructor(model: ByteBuffer, threads: Int = 1) : AutoCloseable {
    private val model = ImageModel(model, threads)

    /** Opens an asset of the app. */
    @Throws(DqaFormatException::class)
    public constructor(context: Context, asset: String) : this(DqaFile.map(context, asset))

    init {
        val shape = this.model.outputShape
        if (shape.size != 2) {
            close()
            throw IllegalArgumentException(
                "a classifier must give 1 x classes scores. Received: ${shape.toList()}",
            )
        }
    }

    /** What the file says about itself. */
    public val metadata: DqaMetadata get() = model.metadata

    /** The classes of a bitmap, which is scaled to the model's size; the best first. */
    public fun classify(bitmap: Bitmap): List<DqaClass> = ranked(model.run(bitmap))

    /** The classes of height x width pixels 0xAARRGGBB, row by row; the best first. */
    public fun classify(pixels: IntArray): List<DqaClass> = ranked(model.run(pixels))

    override fun close(): Unit = model.close()

    private fun ranked(scores: FloatBuffer): List<DqaClass> =
        List(scores.remaining()) { DqaClass(it, model.label(it), scores[it]) }.sortedByDescending(DqaClass::score)
}
