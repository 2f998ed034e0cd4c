package io.github.dqakeras

import java.io.Closeable
import org.tensorflow.lite.Delegate

/**
 * Runs the `DQA` ops of packed models. Give it to an interpreter, and close it after
 * the interpreters that it was given to:
 *
 *     DqaDelegate().use { delegate ->
 *         Interpreter(model, Interpreter.Options().addDelegate(delegate)).use { ... }
 *     }
 *
 * @throws IllegalArgumentException If the native code refuses the options, with its
 *   reason.
 */
public class DqaDelegate internal constructor(options: Map<String, String>) : Delegate, Closeable {
    /** @property isa Instruction set to compute with. All give the same results. */
    public class Options @JvmOverloads constructor(public val isa: Isa = Isa.AUTO)

    /** [AUTO] takes the fastest that the processor has. */
    public enum class Isa { AUTO, SCALAR }

    /**
     * What a delegate runs at the moment, over all its interpreters.
     *
     * @property ops Ops that are ready to run.
     * @property arenaBytes Their memory besides inputs, outputs and weights.
     * @property runs How often an op has run so far.
     */
    public class Counters internal constructor(
        public val ops: Long,
        public val arenaBytes: Long,
        public val runs: Long,
    )

    private var handle: Long = nativeCreate(options.keys.toTypedArray(), options.values.toTypedArray())

    @JvmOverloads
    public constructor(options: Options = Options()) : this(mapOf("isa" to options.isa.name.lowercase()))

    /**
     * For the interpreter.
     *
     * @throws IllegalStateException If the delegate is closed.
     */
    override fun getNativeHandle(): Long = synchronized(this) { opened() }

    /**
     * Reads the counters.
     *
     * @throws IllegalStateException If the delegate is closed.
     */
    public fun counters(): Counters = synchronized(this) {
        val (ops, arenaBytes, runs) = nativeCounters(opened())
        Counters(ops, arenaBytes, runs)
    }

    /** Frees the native half; a second time does nothing. */
    override fun close(): Unit = synchronized(this) {
        if (handle != 0L) nativeDestroy(handle)
        handle = 0
    }

    private fun opened(): Long {
        check(handle != 0L) { "this DqaDelegate is closed: create another one" }
        return handle
    }

    private companion object {
        init {
            System.loadLibrary("dqa_delegate")
        }

        @JvmStatic
        external fun nativeCreate(keys: Array<String>, values: Array<String>): Long

        @JvmStatic
        external fun nativeDestroy(handle: Long)

        @JvmStatic
        external fun nativeCounters(handle: Long): LongArray
    }
}
