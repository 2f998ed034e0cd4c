package io.github.dqakeras

import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** An input or output of a model; [shape] with its batch axis. */
public class DqaTensor internal constructor(
    public val name: String,
    public val shape: IntArray,
    public val type: Type,
) {
    public enum class Type { FLOAT32, UINT8, OTHER }
}

/** What is to be done to an input, `(x - mean) / std`, one number for each channel. */
public class DqaNormalization internal constructor(public val mean: FloatArray, public val std: FloatArray)

/**
 * What a file that dqa_keras exported says about itself.
 *
 * @property model Name of the Keras model.
 * @property tool Name and version of the writer.
 * @property weights How weights are stored: `float32`, `float16` or `int8`.
 * @property normalization What to do to inputs; `null` if the model takes raw 0..255.
 * @property labels Class labels, or `null`.
 * @property tables The quantized activations, in the order of the model.
 * @property skipped Activations without a quantizer, and why.
 * @property config All of `DQA_CONFIG`, as JSON.
 * @property packed Whether it needs [DqaDelegate].
 */
public class DqaMetadata private constructor(
    public val model: String,
    public val tool: String,
    public val weights: String,
    public val normalization: DqaNormalization?,
    public val labels: List<String>?,
    public val tables: List<DqaTable>,
    public val skipped: Map<String, String>,
    public val config: String,
    public val packed: Boolean,
    public val inputs: List<DqaTensor>,
    public val outputs: List<DqaTensor>,
) {
    public companion object {
        private const val NAME = "DQA_CONFIG"
        private const val FORMAT = 2

        // Files that say scales in it too.
        private const val WITH_TABLES = 1

        // What we write has 5 levels; org.json goes down by recursion.
        private const val DEEPEST = 32

        /**
         * Reads the metadata of a `.tflite`, from its position to its limit.
         *
         * @throws DqaFormatException If the file is damaged, was not exported by
         *   dqa_keras, or needs a newer version of this library.
         */
        @JvmStatic
        @Throws(DqaFormatException::class)
        public fun read(file: ByteBuffer): DqaMetadata =
            try {
                parse(TfliteFile(file))
            } catch (error: IndexOutOfBoundsException) {
                throw DqaFormatException("it is damaged: an offset points outside (${error.message})")
            } catch (error: JSONException) {
                throw DqaFormatException("$NAME is not what it should be: ${error.message}")
            }

        private fun parse(file: TfliteFile): DqaMetadata {
            val tables = DqaTable.readAll(metadata(file, DqaTable.NAME))
            val text = metadata(file, NAME).text(NAME)
            checkDepth(text)
            val config = JSONObject(text)
            if (config.getInt("format") !in WITH_TABLES..FORMAT) {
                throw DqaFormatException("$NAME must be of format $FORMAT at most: update the library")
            }
            return DqaMetadata(
                model = config.getString("model"),
                tool = config.getString("tool"),
                weights = config.getString("weights"),
                normalization = config.optional("input")?.let {
                    val input = config.getJSONObject("input")
                    DqaNormalization(input.floats("mean"), input.floats("std"))
                },
                labels = config.optional("labels")?.let {
                    val labels = config.getJSONArray("labels")
                    List(labels.length(), labels::getString)
                },
                tables = tables,
                skipped = config.getJSONArray("skipped").let { list ->
                    List(list.length(), list::getJSONObject).associate { it.getString("name") to it.getString("reason") }
                },
                config = text,
                packed = file.hasCustomOp("DQA"),
                inputs = file.inputs(),
                outputs = file.outputs(),
            )
        }

        private fun metadata(file: TfliteFile, name: String): ByteBuffer =
            file.metadata(name)
                ?: throw DqaFormatException("it holds no $name metadata: it was not exported by dqa_keras")

        private fun checkDepth(text: String) {
            var depth = 0
            var quoted = false
            var escaped = false
            for (char in text) {
                when {
                    escaped -> escaped = false
                    quoted && char == '\\' -> escaped = true
                    char == '"' -> quoted = !quoted
                    quoted -> Unit
                    char == '[' || char == '{' -> depth += 1
                    char == ']' || char == '}' -> depth -= 1
                }
                if (depth > DEEPEST) throw DqaFormatException("$NAME is nested too deep")
            }
        }

        private fun JSONObject.optional(name: String): Any? = if (isNull(name)) null else get(name)

        private fun JSONObject.floats(name: String): FloatArray {
            val numbers: JSONArray = getJSONArray(name)
            return FloatArray(numbers.length()) { numbers.getDouble(it).toFloat() }
        }
    }
}
