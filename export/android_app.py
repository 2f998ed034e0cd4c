"""What makes a folder with a model and its Kotlin class a whole app for Android."""

from collections.abc import Mapping


def app_files(
    kind: str, package: str, name: str, asset: str, dependencies: str
) -> dict[str, str]:
    """Text of each file of an app that shows what a model says of a picture.

    Args:
        kind: String. `"classes"` or `"segments"`.
        package: String. Package of the Kotlin classes.
        name: String. Name of the class that runs the model.
        asset: String. Name of the model's file, without `.tflite`.
        dependencies: String. Lines of the build script's `dependencies`.

    Returns:
        Dict of paths in the app's folder to texts.
    """
    values = {
        "PACKAGE": package,
        "MODEL": name,
        "ASSET": asset,
        "DEPENDENCIES": dependencies,
        **_SHOWN[kind],
    }
    source = f"src/main/kotlin/{package.replace('.', '/')}"
    texts = {
        "settings.gradle.kts": _SETTINGS,
        "build.gradle.kts": _BUILD,
        "src/main/AndroidManifest.xml": _MANIFEST,
        f"{source}/MainActivity.kt": _ACTIVITY,
        f"{source}/Pictures.kt": _PICTURES,
    }
    return {path: _filled(text, values) for path, text in texts.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for word, value in values.items():
        text = text.replace(f"<<{word}>>", value)
    return text


_SHOWN: dict[str, dict[str, str]] = {
    "classes": {
        "IMPORTS": "",
        "RUN": "val found = model.describe(picture)",
        "TEXT": "found",
        "PICTURE": "picture",
        "MORE": "",
    },
    "segments": {
        "IMPORTS": "import android.graphics.Color\n"
        "import io.github.dqakeras.DqaSegmentation\n",
        "RUN": "val map = model.segment(picture)",
        "TEXT": "shares(map)",
        "PICTURE": "painted(map)",
        "MORE": """\

/** The three largest classes and their shares of the picture. */
internal fun shares(map: DqaSegmentation): String =
    map.classes.toList().groupingBy { it }.eachCount().entries
        .sortedByDescending { it.value }.take(3)
        .joinToString { "${map.labels[it.key]} ${100 * it.value / map.classes.size} %" }

/** A picture with a colour for each class. */
internal fun painted(map: DqaSegmentation): Bitmap {
    val colours = IntArray(map.labels.size) {
        Color.HSVToColor(floatArrayOf(360f * it / map.labels.size, 0.8f, 0.9f))
    }
    val pixels = IntArray(map.classes.size) { colours[map.classes[it]] }
    return Bitmap.createBitmap(pixels, map.width, map.height, Bitmap.Config.ARGB_8888)
}
""",
    },
}

_SETTINGS = """\
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositories {
        google()
        mavenCentral()
    }
}
rootProject.name = "<<ASSET>>"
"""

_BUILD = """\
plugins {
    id("com.android.application") version "8.5.2"
    id("org.jetbrains.kotlin.android") version "2.0.21"
}

android {
    namespace = "<<PACKAGE>>"
    compileSdk = 34
    defaultConfig {
        applicationId = "<<PACKAGE>>"
        minSdk = 24
        targetSdk = 34
        versionCode = 1
        versionName = "1.0"
    }
    androidResources { noCompress += "tflite" }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
<<DEPENDENCIES>>}
"""

_MANIFEST = """\
<manifest xmlns:android="http://schemas.android.com/apk/res/android">
    <application android:label="<<MODEL>>"
        android:theme="@android:style/Theme.DeviceDefault">
        <activity android:name=".MainActivity" android:exported="true">
            <intent-filter>
                <action android:name="android.intent.action.MAIN" />
                <category android:name="android.intent.category.LAUNCHER" />
            </intent-filter>
        </activity>
        <!-- Where the camera's app puts its picture. -->
        <provider android:name=".PictureProvider" android:exported="false"
            android:authorities="<<PACKAGE>>.pictures"
            android:grantUriPermissions="true" />
    </application>
</manifest>
"""

_ACTIVITY = """\
package <<PACKAGE>>

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.ClipData
import android.content.Intent
import android.graphics.Bitmap
<<IMPORTS>>import android.net.Uri
import android.os.Bundle
import android.provider.MediaStore
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import java.io.File
import java.util.Locale
import java.util.concurrent.Executors

/** Shows what <<ASSET>>.tflite says of a picture from the camera or the gallery. */
class MainActivity : Activity() {
    // It alone touches the model.
    private val worker = Executors.newSingleThreadExecutor()
    private var model: <<MODEL>>? = null

    private lateinit var image: ImageView
    private lateinit var answer: TextView
    private var shown: Uri? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        image = ImageView(this)
        answer = TextView(this)
        val page = LinearLayout(this)
        page.orientation = LinearLayout.VERTICAL
        page.fitsSystemWindows = true
        page.addView(button("Camera", ::takePicture))
        page.addView(button("Gallery", ::choosePicture))
        page.addView(answer)
        page.addView(image)
        setContentView(page)
        state?.getString(SHOWN)?.let { show(Uri.parse(it)) }
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        shown?.let { state.putString(SHOWN, it.toString()) }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        if (result != RESULT_OK) return
        val picture = if (request == CAMERA) PictureProvider.uri(this) else data?.data
        picture?.let(::show)
    }

    override fun onDestroy() {
        worker.execute { model?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun button(name: String, action: () -> Unit) = Button(this).apply {
        text = name
        setOnClickListener { action() }
    }

    private fun takePicture() {
        val place = PictureProvider.uri(this)
        val camera = Intent(MediaStore.ACTION_IMAGE_CAPTURE)
            .putExtra(MediaStore.EXTRA_OUTPUT, place)
            .addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION)
        camera.clipData = ClipData.newRawUri("", place)
        start(camera, CAMERA)
    }

    private fun choosePicture() =
        start(Intent(Intent.ACTION_GET_CONTENT).setType("image/*"), GALLERY)

    private fun start(intent: Intent, request: Int) =
        try {
            startActivityForResult(intent, request)
        } catch (_: ActivityNotFoundException) {
            answer.text = "this device has no app for that"
        }

    private fun show(picture: Uri) {
        shown = picture
        answer.text = "…"
        worker.execute {
            val (text, bitmap) = try {
                look(picture)
            } catch (error: Exception) { // whatever the picture or the file is like
                "${error.message ?: error}" to null
            }
            runOnUiThread {
                answer.text = text
                image.setImageBitmap(bitmap)
            }
        }
    }

    private fun look(uri: Uri): Pair<String, Bitmap> {
        val picture = readPicture(contentResolver, uri)
        val model = model ?: <<MODEL>>(this).also { model = it }
        val start = System.nanoTime()
        <<RUN>>
        val ms = (System.nanoTime() - start) / 1e6
        val cost = "%.1f ms, %d MiB of memory, %d at most"
        val used = cost.format(Locale.ROOT, ms, memory("VmRSS"), memory("VmHWM"))
        return "${<<TEXT>>}\\n$used" to <<PICTURE>>
    }

    private companion object {
        const val CAMERA = 1
        const val GALLERY = 2
        const val SHOWN = "shown"
    }
}
<<MORE>>
/** MiB of this process's memory that a line of its status gives. */
internal fun memory(line: String): Long =
    File("/proc/self/status").readLines().first { it.startsWith("$line:") }
        .filter(Char::isDigit).toLong() / 1024
"""

_PICTURES = """\
package <<PACKAGE>>

import android.content.ContentProvider
import android.content.ContentResolver
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.ParcelFileDescriptor
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/** The file that the camera's app writes; nothing else is to be had here. */
class PictureProvider : ContentProvider() {
    override fun onCreate() = true

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        val app = context ?: throw FileNotFoundException("$uri")
        val file = File(app.cacheDir, "picture.jpg")
        return ParcelFileDescriptor.open(file, ParcelFileDescriptor.parseMode(mode))
    }

    override fun getType(uri: Uri) = "image/jpeg"

    override fun query(
        uri: Uri, columns: Array<String>?, where: String?, values: Array<String>?,
        order: String?,
    ): Cursor? = null

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(
        uri: Uri, values: ContentValues?, where: String?, arguments: Array<String>?,
    ) = 0

    override fun delete(uri: Uri, where: String?, arguments: Array<String>?) = 0

    companion object {
        /** What the camera's app is told. */
        fun uri(context: Context): Uri =
            Uri.parse("content://${context.packageName}.pictures/picture.jpg")
    }
}

/**
 * A picture the right way up, no larger than it needs to be: at least 512 pixels a side
 * are left of a large one.
 *
 * @throws IOException If there is none.
 */
internal fun readPicture(resolver: ContentResolver, uri: Uri): Bitmap {
    fun <T> open(read: (InputStream) -> T): T {
        val file = resolver.openInputStream(uri) ?: throw IOException("no file at $uri")
        return file.use(read)
    }

    val options = BitmapFactory.Options()
    options.inJustDecodeBounds = true
    open { BitmapFactory.decodeStream(it, null, options) }
    options.inSampleSize = sampling(options.outWidth, options.outHeight)
    options.inJustDecodeBounds = false
    val picture = open { BitmapFactory.decodeStream(it, null, options) }
        ?: throw IOException("no picture at $uri")
    val turn = open { degrees(ExifInterface(it)) }
    if (turn == 0) return picture
    val upright = Matrix().apply { setRotate(turn.toFloat()) }
    val (width, height) = picture.width to picture.height
    return Bitmap.createBitmap(picture, 0, 0, width, height, upright, true)
}

/** Every how many pixels one is read: a power of two. */
internal fun sampling(width: Int, height: Int): Int {
    var step = 1
    while (minOf(width, height) / (2 * step) >= 512) step *= 2
    return step
}

/** How far a camera was turned. */
internal fun degrees(exif: ExifInterface): Int =
    when (exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, 0)) {
        ExifInterface.ORIENTATION_ROTATE_90 -> 90
        ExifInterface.ORIENTATION_ROTATE_180 -> 180
        ExifInterface.ORIENTATION_ROTATE_270 -> 270
        else -> 0
    }
"""
