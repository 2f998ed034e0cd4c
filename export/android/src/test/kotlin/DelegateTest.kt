package io.github.dqakeras

import java.io.File
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.tensorflow.lite.Interpreter

internal class DelegateTest {
    private val packed = Exported.ALL.first { it.mode == "packed" }

    private fun residentBytes(): Long = File("/proc/self/statm").readText().split(" ")[1].toLong() * 4096

    @Test
    fun `it is created with any options and closes once`() {
        for (isa in DqaDelegate.Isa.values()) {
            val delegate = DqaDelegate(DqaDelegate.Options(isa))
            assertNotEquals(0L, delegate.nativeHandle)
            assertEquals(0L, delegate.counters().ops)
            delegate.close()
            delegate.close()
        }
    }

    @Test
    fun `after closing it complains`() {
        val delegate = DqaDelegate().apply(DqaDelegate::close)
        for (use in listOf<() -> Any>(delegate::getNativeHandle, delegate::counters)) {
            val error = assertThrows(IllegalStateException::class.java) { use() }
            assertTrue("closed" in error.message!!)
        }
        assertThrows(IllegalStateException::class.java) {
            Interpreter(direct(packed.bytes), Interpreter.Options().addDelegate(delegate)).close()
        }
    }

    @Test
    fun `a native refusal of options is the exception's message`() {
        for (options in listOf(mapOf("isa" to "quantum"), mapOf("colour" to "auto"))) {
            val error = assertThrows(IllegalArgumentException::class.java) { DqaDelegate(options) }
            assertTrue("DQA delegate: " in error.message!! && "isa" in error.message!!, error.message)
        }
    }

    @Test
    fun `a native refusal of a model is the exception's message`() {
        val damaged = packed.bytes.clone().also { it[it.find("DQAG") + 40] = 77 }
        DqaDelegate().use { delegate ->
            val error = assertThrows(IllegalStateException::class.java) {
                Interpreter(direct(damaged), Interpreter.Options().addDelegate(delegate)).close()
            }
            assertTrue("its checksum does not match" in error.message!!, error.message)
            assertEquals(0L, delegate.counters().ops)
        }
        val error = assertThrows(IllegalArgumentException::class.java) { DqaClassifier(direct(damaged)) }
        assertTrue("resnet32" in error.message!! && "its checksum does not match" in error.message!!, error.message)
    }

    @Test
    fun `it counts what runs`() {
        DqaDelegate().use { delegate ->
            Interpreter(direct(packed.bytes), Interpreter.Options().addDelegate(delegate)).use { interpreter ->
                val input = direct(ByteArray(32 * 32 * 3 * 4))
                val scores = Array(1) { FloatArray(10) }
                repeat(3) { interpreter.run(input.also { it.rewind() }, scores) }
                assertEquals(1L, delegate.counters().ops)
                assertEquals(3L, delegate.counters().runs)
                assertTrue(delegate.counters().arenaBytes in 10_000..1_000_000, "${delegate.counters().arenaBytes}")
            }
            assertEquals(0L, delegate.counters().ops)
            assertEquals(0L, delegate.counters().arenaBytes)
        }
    }

    // The heap is resident from the start (pom.xml), so what grows is native.
    @Test
    fun `10,000 delegates leave nothing behind`() {
        repeat(10_000) { DqaDelegate().use(DqaDelegate::counters) }
        val before = residentBytes()
        repeat(10_000) { DqaDelegate().use(DqaDelegate::counters) }
        val growth = residentBytes() - before
        println("10,000 delegates: ${growth / 1024} KiB more are resident")
        assertTrue(growth < 1_000_000, "$growth bytes more are resident")
    }

    @Test
    fun `nor do models`() {
        val model = direct(packed.bytes) // direct buffers wait for the collector
        fun cycle() = DqaClassifier(model).use { it.classify(packed.pixels) }
        repeat(20) { cycle() }
        System.gc()
        val before = residentBytes()
        repeat(50) { cycle() }
        System.gc()
        val growth = residentBytes() - before
        println("50 classifiers: ${growth / 1024} KiB more are resident")
        assertTrue(growth < 20_000_000, "$growth bytes more are resident")
    }
}
