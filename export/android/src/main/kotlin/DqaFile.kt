package io.github.dqakeras

import android.content.Context
import android.content.res.AssetFileDescriptor
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** Models among the assets of an app. */
public object DqaFile {
    /**
     * Maps an asset without copying it. Gradle's Android plugin stores `.tflite` files
     * uncompressed, which that needs.
     *
     * @throws IOException If there is no such asset, or it is compressed.
     */
    @JvmStatic
    public fun map(context: Context, asset: String): ByteBuffer =
        open(context, asset).use { place ->
            FileInputStream(place.fileDescriptor).use { file ->
                file.channel.map(FileChannel.MapMode.READ_ONLY, place.startOffset, place.declaredLength)
            }
        }

    private fun open(context: Context, asset: String): AssetFileDescriptor =
        try {
            context.assets.openFd(asset)
        } catch (error: IOException) {
            throw IOException(
                "asset $asset must be there and not compressed: the app's build script needs " +
                    "androidResources { noCompress += \"tflite\" }. Android says: ${error.message}",
                error,
            )
        }
}
