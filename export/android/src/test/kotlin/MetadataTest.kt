package io.github.dqakeras

import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

internal class MetadataTest {
    private fun JSONArray.ints() = List(length(), ::getInt)

    @Test
    fun `both buffers of every exported file say the same`() {
        for (exported in Exported.ALL) {
            val metadata = DqaMetadata.read(ByteBuffer.wrap(exported.bytes))
            val layers = JSONObject(metadata.config).getJSONArray("layers")
            assertEquals(layers.length(), metadata.tables.size)
            for ((index, table) in metadata.tables.withIndex()) {
                val layer = layers.getJSONObject(index)
                assertEquals(layer.getString("name"), table.name)
                assertEquals(4, table.bits)
                assertEquals(layer.getJSONObject("config").getInt("extra_bits"), table.extraBits)
                assertEquals(layer.getJSONArray("shape").ints(), table.shape.toList())
                assertEquals(layer.getBoolean("signed"), table.signed)
            }
            assertEquals(exported.mode == "packed", metadata.packed)
            assertNull(metadata.normalization)
            assertEquals("float32", metadata.weights)
            assertTrue(metadata.tool.startsWith("dqa_keras "))
        }
    }

    @Test
    fun `what the three models are`() {
        for (exported in Exported.ALL) {
            val metadata = DqaMetadata.read(ByteBuffer.wrap(exported.bytes))
            val (quantizers, labels, input, output) = when (metadata.model) {
                "resnet32" -> listOf(31, 10, listOf(1, 32, 32, 3), listOf(1, 10))
                "unet" -> listOf(10, 11, listOf(1, 36, 48, 3), listOf(1, 36, 48, 11))
                else -> listOf(35, null, listOf(1, 32, 32, 3), listOf(1, 10))
            }
            assertEquals(quantizers, metadata.tables.size)
            assertEquals(labels, metadata.labels?.size)
            assertEquals(input, metadata.inputs.single().shape.toList())
            assertEquals(output, metadata.outputs.single().shape.toList())
            assertEquals(DqaTensor.Type.FLOAT32, metadata.inputs.single().type)
        }
    }

    @Test
    fun `golden tables read as written`() {
        val folder = property("golden").resolve("metadata")
        val tables = listOf("cases.bin", "tail.bin").flatMap {
            DqaTable.readAll(ByteBuffer.wrap(folder.resolve(it).readBytes()))
        }
        assertEquals(Golden.ALL.map { it.table.name }.toSet(), tables.map { it.name }.toSet())
        for (case in Golden.ALL) assertSame(case.table, tables.single { it.name == case.table.name })
        val names = DqaTable.readAll(ByteBuffer.wrap(folder.resolve("names.bin").readBytes())).map { it.name }
        assertEquals(listOf("", "block/relu", "zweite Schicht ä", "激活", "🧪", "a\u0000b"), names)
    }

    @Test
    fun `a file is read from the buffer's position to its limit`() {
        val bytes = Exported.ALL.first().bytes
        val buffer = ByteBuffer.allocate(bytes.size + 5)
        buffer.position(3)
        buffer.put(bytes)
        buffer.position(3)
        buffer.limit(3 + bytes.size)
        assertEquals("resnet32", DqaMetadata.read(buffer).model)
        assertEquals(3, buffer.position())
    }

    @Test
    fun `what is no file of ours is named`() {
        val bytes = Exported.ALL.first().bytes
        val cases = mapOf(
            ByteArray(0) to "not a .tflite",
            "hello, world".toByteArray() to "not a .tflite",
            bytes.copyOf(bytes.size / 2) to "", // wherever it is cut
            bytes.clone().also { it[it.find("DQA_RESIDUAL")] = 'X'.code.toByte() } to "not exported by dqa_keras",
            bytes.clone().also { it[it.find("DQAR") + 20] = 'X'.code.toByte() } to "CRC-32",
            bytes.clone().also { it[it.find("DQAR") + 4] = 9 } to "version 9",
            bytes.clone().also { it[it.find("\"format\": 2") + 10] = '7'.code.toByte() } to "update the library",
            bytes.clone().also { it.fill('['.code.toByte(), it.find("\"layers\""), it.find("\"layers\"") + 50) } to "nested",
            bytes.clone().also { it[it.find("\"layers\"") + 3] = 0xff.toByte() } to "not UTF-8",
            bytes.clone().also { it[it.find("{\"format\"")] = ']'.code.toByte() } to "DQA_CONFIG",
        )
        for ((damaged, reason) in cases) {
            val error = assertThrows(DqaFormatException::class.java) { DqaMetadata.read(ByteBuffer.wrap(damaged)) }
            assertTrue(reason in error.message!!, "wanted: $reason. ${error.message}")
        }
    }
}
