package io.github.dqakeras

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.ZipFile
import java.util.zip.ZipInputStream
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

internal class AarTest {
    private val aar: File = property("archive")
    private val libraries = listOf("arm64-v8a", "armeabi-v7a", "x86_64").map { "jni/$it/libdqa_delegate.so" }

    private fun content(name: String): ByteArray =
        ZipFile(aar).use { it.getInputStream(it.getEntry(name)).readBytes() }

    @Test
    fun `it holds what is ours and nothing else`() {
        val entries = ZipFile(aar).use { zip ->
            zip.entries().asSequence().filterNot { it.isDirectory }.map { it.name }.toSet()
        }
        val others = setOf("AndroidManifest.xml", "LICENSE", "R.txt", "classes.jar", "proguard.txt")
        assertEquals(others + libraries, entries)

        val classes = ZipInputStream(content("classes.jar").inputStream()).use { zip ->
            generateSequence(zip::getNextEntry).filterNot { it.isDirectory }.map { it.name }.toList()
        }
        assertTrue("io/github/dqakeras/DqaDelegate.class" in classes)
        for (name in classes) {
            assertTrue(
                name.startsWith("io/github/dqakeras/") || name == "META-INF/dqa-android.kotlin_module",
                name,
            )
        }
    }

    @Test
    fun `libraries are for pages of 16 KiB and show only what others call`() {
        for (library in libraries) {
            val elf = Elf(content(library))
            assertTrue(elf.segments.isNotEmpty())
            for ((offset, address, alignment) in elf.segments) {
                assertTrue(alignment >= 16384, "$library: a segment is aligned to $alignment")
                assertEquals(0L, (address - offset) % 16384, library)
            }
            assertEquals(
                setOf("JNI_OnLoad", "tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"),
                elf.exports.filterNot { it.startsWith("dqa_litert_") }.toSet(),
                library,
            )
        }
    }
}

/** What a loader looks at: little-endian ELF, 32 or 64 bits. */
private class Elf(bytes: ByteArray) {
    private val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    private val wide = data.get(4).toInt() == 2

    private fun word(place: Int): Long =
        if (wide) data.getLong(place) else data.getInt(place).toLong() and 0xffffffffL

    private fun short(place: Int) = data.getShort(place).toInt() and 0xffff

    /** Offset, address and alignment of what is loaded. */
    val segments: List<Triple<Long, Long, Long>>

    /** Symbols that others can use. */
    val exports: Set<String>

    init {
        val first = word(if (wide) 32 else 28).toInt()
        val size = short(if (wide) 54 else 42)
        segments = List(short(if (wide) 56 else 44)) { first + it * size }
            .filter { data.getInt(it) == 1 }
            .map { header ->
                if (wide) {
                    Triple(word(header + 8), word(header + 16), word(header + 48))
                } else {
                    Triple(word(header + 4), word(header + 8), word(header + 28))
                }
            }

        val sections = word(if (wide) 40 else 32).toInt()
        val each = short(if (wide) 58 else 46)
        fun section(index: Int) = sections + index * each
        fun offset(header: Int) = word(header + if (wide) 24 else 16).toInt()
        fun length(header: Int) = word(header + if (wide) 32 else 20).toInt()
        val symbols = (0 until short(if (wide) 60 else 48)).map(::section).single { data.getInt(it + 4) == 11 }
        val names = offset(section(data.getInt(symbols + if (wide) 40 else 24)))
        val step = if (wide) 24 else 16
        exports = (0 until length(symbols) / step).map { offset(symbols) + it * step }
            .filter { symbol -> short(symbol + if (wide) 6 else 14) != 0 } // defined here
            .filter { symbol -> data.get(symbol + if (wide) 4 else 12).toInt() shr 4 != 0 } // not local
            .map { symbol ->
                val start = names + data.getInt(symbol)
                val end = generateSequence(start, Int::inc).first { data.get(it).toInt() == 0 }
                String(data.array(), start, end - start)
            }
            .toSet()
    }
}
