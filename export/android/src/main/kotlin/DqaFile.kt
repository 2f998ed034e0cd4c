package io.github.dqakeras

import android.content.Context
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** Models among the assets of an app. */
public object DqaFile {
    /**
     * Maps an asset without copying it. Gradle's Android plugin stores `.tflite` files
     * uncompressed, which that needs.
     *
     * @throws java.io.IOException If there is no such asset, or it is compressed.
     */
    @JvmStatic
    public fun map(context: Context, asset: String): ByteBuffer =
        context.assets.openFd(asset).use { place ->
            FileInputStream(place.fileDescriptor).use { file ->
                file.channel.map(FileChannel.MapMode.READ_ONLY, place.startOffset, place.declaredLength)
            }
        }
}
