package androidx.test.runner.intent

internal interface IntentMonitor

internal object IntentMonitorRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(monitor: IntentMonitor?) = Unit
}

internal object IntentStubberRegistry {
    @JvmStatic
    fun isLoaded(): Boolean = false
}
