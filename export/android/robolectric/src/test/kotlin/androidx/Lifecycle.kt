package androidx.test.runner.lifecycle

internal enum class Stage { PRE_ON_CREATE, CREATED, STARTED, RESUMED, PAUSED, STOPPED, RESTARTED, DESTROYED }

internal enum class ApplicationStage { PRE_ON_CREATE, CREATED }

internal interface ActivityLifecycleMonitor

internal interface ApplicationLifecycleMonitor

internal object ActivityLifecycleMonitorRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(monitor: ActivityLifecycleMonitor?) = Unit
}

internal object ApplicationLifecycleMonitorRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(monitor: ApplicationLifecycleMonitor?) = Unit
}
