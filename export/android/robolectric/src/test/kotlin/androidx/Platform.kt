// Robolectric tells androidx.test what happens. That is not on Maven Central, and nobody
// listens here: this file and its neighbours have what it calls, and do nothing.
package androidx.test.platform.app

import android.app.Instrumentation
import android.os.Bundle

internal object InstrumentationRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(instrumentation: Instrumentation?, arguments: Bundle?) = Unit
}
