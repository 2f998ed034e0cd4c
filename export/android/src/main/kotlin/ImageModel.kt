package io.github.dqakeras

import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import org.tensorflow.lite.Interpreter

/** A model of one image in an interpreter: pixels in, numbers out. */
internal class ImageModel(file: ByteBuffer, threads: Int) : AutoCloseable {
    val metadata: DqaMetadata = DqaMetadata.read(file)
    val height: Int
    val width: Int
    val outputShape: IntArray

    private val channels: Int
    private val input: ByteBuffer
    private val output: ByteBuffer
    private val delegate: DqaDelegate?
    private val interpreter: Interpreter

    init {
        val (image, scores) = require("one input and one output") {
            metadata.inputs.singleOrNull()?.let { image -> metadata.outputs.singleOrNull()?.let { image to it } }
        }
        val shape = require("an input of 1 x height x width x 1 or 3 channels, float32 or uint8") {
            image.shape.takeIf {
                it.size == 4 && it[0] == 1 && it[1] > 0 && it[2] > 0 && (it[3] == 1 || it[3] == 3) &&
                    image.type != DqaTensor.Type.OTHER
            }
        }
        require("a float32 output of known size") {
            scores.takeIf { it.type == DqaTensor.Type.FLOAT32 && it.shape.all { side -> side > 0 } }
        }
        height = shape[1]
        width = shape[2]
        channels = shape[3]
        outputShape = scores.shape
        val valueBytes = if (image.type == DqaTensor.Type.FLOAT32) 4 else 1
        require("no normalization, or one number a channel and float32 inputs") {
            Unit.takeIf {
                metadata.normalization?.run { valueBytes == 4 && mean.size == channels && std.size == channels } ?: true
            }
        }
        input = direct(height.toLong() * width * channels * valueBytes)
        output = direct(outputShape.fold(4L, Long::times))
        delegate = if (metadata.packed) DqaDelegate() else null
        try {
            val options = Interpreter.Options().setNumThreads(threads)
            delegate?.let(options::addDelegate)
            interpreter = Interpreter(file, options)
        } catch (error: RuntimeException) {
            delegate?.close()
            throw IllegalArgumentException(
                "the interpreter refuses model '${metadata.model}': ${error.message}", error,
            )
        }
    }

    /** Runs the model on [height] x [width] pixels 0xAARRGGBB, row by row. */
    fun run(pixels: IntArray): FloatBuffer {
        require(pixels.size == height * width) {
            "the model takes $height x $width pixels. Received: ${pixels.size}"
        }
        input.rewind()
        for (pixel in pixels) {
            val red = pixel shr 16 and 0xff
            val green = pixel shr 8 and 0xff
            val blue = pixel and 0xff
            if (channels == 3) {
                put(red, 0)
                put(green, 1)
                put(blue, 2)
            } else {
                put((299 * red + 587 * green + 114 * blue + 500) / 1000, 0) // ITU-R BT.601
            }
        }
        input.rewind()
        output.rewind()
        interpreter.run(input, output)
        output.rewind()
        return output.asFloatBuffer()
    }

    /** The same of a bitmap of any size, scaled. */
    fun run(bitmap: Bitmap): FloatBuffer {
        require(bitmap.config != Bitmap.Config.ALPHA_8) {
            "a bitmap must have colours. Received: ALPHA_8, which has opacity alone"
        }
        var scaled = Bitmap.createScaledBitmap(bitmap, width, height, true)
        // Pixels that lie with the graphics processor cannot be read there.
        if (scaled.config != Bitmap.Config.ARGB_8888) scaled = scaled.copy(Bitmap.Config.ARGB_8888, false)
        val pixels = IntArray(height * width)
        scaled.getPixels(pixels, 0, width, 0, 0, width, height)
        return run(pixels)
    }

    fun label(index: Int): String = metadata.labels?.getOrNull(index) ?: index.toString()

    override fun close() {
        interpreter.close()
        delegate?.close()
    }

    private fun put(value: Int, channel: Int) {
        val normalization = metadata.normalization
        when {
            input.capacity() == height * width * channels -> input.put(value.toByte())
            normalization == null -> input.putFloat(value.toFloat())
            else -> input.putFloat((value - normalization.mean[channel]) / normalization.std[channel])
        }
    }

    private fun <T : Any> require(rule: String, found: () -> T?): T =
        requireNotNull(found()) { "model '${metadata.model}' must have $rule" }

    private companion object {
        fun direct(bytes: Long): ByteBuffer {
            require(bytes <= Int.MAX_VALUE) { "a tensor must be smaller than 2 GiB. Received: $bytes bytes" }
            return ByteBuffer.allocateDirect(bytes.toInt()).order(ByteOrder.nativeOrder())
        }
    }
}
