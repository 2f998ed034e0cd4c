"""Exports a calibrated Keras model as files that drop into an Android app.

`docs/android.md` shows the whole way.
"""

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from dqa_keras.export.android_app import app_files
from dqa_keras.export.android_names import class_name
from dqa_keras.export.litert.metadata import read_metadata
from dqa_keras.export.tflite import ExportReport, export_tflite
from dqa_keras.version import __version__

# What the app's Gradle file asks for; export/android/pom.xml tests with the same.
TFLITE = "org.tensorflow:tensorflow-lite:2.16.1"
FLATBUFFERS = "com.google.flatbuffers:flatbuffers-java:25.2.10"

_DEPENDENCIES = f"""\
    implementation(files("libs/dqa-android.aar"))
    implementation("{TFLITE}")
    implementation("{FLATBUFFERS}")
"""

_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
# Hard keywords of Kotlin in lower case, and Java's: no package may have them.
_RESERVED = """
    abstract as assert boolean break byte case catch char class const continue default
    do double else enum extends false final finally float for fun goto if implements
    import in instanceof int interface is long native new null object package private
    protected public return short static strictfp super switch synchronized this throw
    throws transient true try typealias typeof val var void volatile when while
"""


def export_android(
    model: keras.Model,
    folder: str | os.PathLike,
    *,
    package: str = "com.example.app",
    **options: Any,
) -> ExportReport:
    """Writes a model as an Android app, or as what an app needs to run it.

    The folder gets a `README.md` with the Gradle lines, the model (and its labels as
    text) in `src/main/assets`, and in `src/main/kotlin` a class that runs it. If the
    model takes one image and gives scores of classes, for the image or for each pixel,
    Gradle's files, a manifest and a screen make it a whole app.

    Args:
        model: Keras model with calibrated quantizers.
        folder: Path of a folder that is empty, or holds a former export, or does not
            exist yet. All of the export or nothing is put there.
        package: String. Package of the Kotlin class. Defaults to `"com.example.app"`.
        **options: Further arguments of `export_tflite`, such as `mode` and `labels`.

    Returns:
        The `ExportReport` of the `.tflite`.

    Raises:
        ValueError: If the package cannot be one, the folder holds something else, or
            for what `export_tflite` raises it.

    Example:
    >>> import keras, numpy as np, pathlib, tempfile
    >>> import dqa_keras as dqa
    >>> from dqa_keras.export import export_android
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ... ], name="colours")
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> dqa.calibrate(quantized, np.ones((4, 8, 8, 3), np.float32), verbose=0)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> report = export_android(quantized, folder, labels=["red", "green", "blue", "-"])
    >>> for path in sorted(folder.rglob("*.*")):
    ...     print(path.relative_to(folder))
    README.md
    build.gradle.kts
    settings.gradle.kts
    src/main/AndroidManifest.xml
    src/main/assets/colours.tflite
    src/main/assets/colours_labels.txt
    src/main/kotlin/com/example/app/Colours.kt
    src/main/kotlin/com/example/app/MainActivity.kt
    src/main/kotlin/com/example/app/Pictures.kt
    """
    if not _PACKAGE.fullmatch(package) or set(_RESERVED.split()) & set(
        package.split(".")
    ):
        raise ValueError(
            "package must be at least two lower-case names with dots between them, "
            f"none of them a keyword, such as com.example.app. Received: {package!r}"
        )
    folder = Path(folder)
    _check_free(folder)
    asset = re.sub(r"[^a-z0-9]+", "_", model.name.lower()).strip("_") or "model"
    if asset[0].isdigit():
        asset = f"model_{asset}"
    name = class_name(asset)
    try:
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror}") from error
    try:
        assets = staged / "src/main/assets"
        source = staged / "src/main/kotlin" / package.replace(".", "/") / f"{name}.kt"
        assets.mkdir(parents=True)
        source.parent.mkdir(parents=True)
        path = assets / f"{asset}.tflite"
        report = export_tflite(model, path, **options)
        labels = read_metadata(path).config["labels"]
        if labels is not None:
            text = "".join(f"{label}\n" for label in labels)
            path.with_name(f"{asset}_labels.txt").write_text(text, encoding="utf-8")
        packed = report.packed is not None
        kind = _kind(model)
        source.write_text(_source(kind, package, name, asset, packed))
        if kind != "tensors":
            app = app_files(kind, package, name, asset, _DEPENDENCIES)
            for place, text in app.items():
                (staged / place).write_text(text, encoding="utf-8")
        (staged / "README.md").write_text(_readme(kind, package, name, asset, packed))
        _move(staged, folder)
    finally:
        shutil.rmtree(staged)
    path = folder / path.relative_to(staged)
    return dataclasses.replace(report, path=str(path))


def _title(asset: str) -> str:
    return f"# {asset}.tflite on Android"


def _check_free(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"cannot write {folder}: it is a file. Name a folder.")
    readme = folder / "README.md"
    ours = readme.is_file() and re.match(
        r"# \w+\.tflite on Android\n", readme.read_text(errors="replace")
    )
    if any(folder.iterdir()) and not ours:
        raise ValueError(
            f"the folder of an Android export must be new, empty, or hold a former "
            f"export. Received: {folder}"
        )


def _move(staged: Path, folder: Path) -> None:
    """Puts every staged file in its place; README.md last: it marks the export whole.

    A former export of a model with another name stays beside the new one.
    """
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == "README.md"):
        target = folder / path.relative_to(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _kind(model: keras.Model) -> str:
    inputs, outputs = model.inputs, model.outputs
    one_image = (
        len(inputs) == len(outputs) == 1
        and len(inputs[0].shape) == 4
        and all(inputs[0].shape[1:3])
        and inputs[0].shape[3] in (1, 3)
        and all(outputs[0].shape[1:])
    )
    if not one_image:
        return "tensors"
    return {2: "classes", 4: "segments"}.get(len(outputs[0].shape), "tensors")


def _source(kind: str, package: str, name: str, asset: str, packed: bool) -> str:
    return _SOURCES[kind].format(
        package=package,
        name=name,
        asset=asset,
        version=__version__,
        imports=_lines(packed, "import io.github.dqakeras.DqaDelegate"),
        delegate=_lines(packed, "    private val delegate = DqaDelegate()"),
        options=".addDelegate(delegate)" if packed else "",
        free=_lines(packed, "        delegate.close()"),
    )


def _lines(wanted: bool, *lines: str) -> str:
    return "".join(f"{line}\n" for line in lines) if wanted else ""


_HEAD = """\
package {package}

"""

_SOURCES: dict[str, str] = {
    "classes": _HEAD
    + """\
import android.content.Context
import android.graphics.Bitmap
import io.github.dqakeras.DqaClassifier

/** Runs {asset}.tflite, exported by dqa_keras {version}. One thread at a time. */
class {name}(context: Context) : AutoCloseable {{
    private val classifier = DqaClassifier(context, "{asset}.tflite")

    /** The best three classes with their scores. */
    fun describe(image: Bitmap): String =
        classifier.classify(image).take(3)
            .joinToString {{ "${{it.label}} ${{it.score}}" }}

    override fun close() = classifier.close()
}}
""",
    "segments": _HEAD
    + """\
import android.content.Context
import android.graphics.Bitmap
import io.github.dqakeras.DqaSegmentation
import io.github.dqakeras.DqaSegmenter

/** Runs {asset}.tflite, exported by dqa_keras {version}. One thread at a time. */
class {name}(context: Context) : AutoCloseable {{
    private val segmenter = DqaSegmenter(context, "{asset}.tflite")

    /** The class of each pixel. */
    fun segment(image: Bitmap): DqaSegmentation = segmenter.segment(image)

    override fun close() = segmenter.close()
}}
""",
    "tensors": _HEAD
    + """\
import android.content.Context
{imports}import io.github.dqakeras.DqaFile
import org.tensorflow.lite.Interpreter

/** Runs {asset}.tflite, exported by dqa_keras {version}. One thread at a time. */
class {name}(context: Context) : AutoCloseable {{
{delegate}    private val interpreter = Interpreter(
        DqaFile.map(context, "{asset}.tflite"), Interpreter.Options(){options})

    /** Inputs in the model's order; each output goes to its array or direct buffer. */
    fun run(inputs: Array<Any>, outputs: Map<Int, Any>) =
        interpreter.runForMultipleInputsOutputs(inputs, outputs)

    override fun close() {{
        interpreter.close()
{free}    }}
}}
""",
}


def _readme(kind: str, package: str, name: str, asset: str, packed: bool) -> str:
    delegate = " \\\n    --external_delegate_path=/data/local/tmp/libdqa_delegate.so"
    return f"""\
{_title(asset)}

{_lines(kind != "tensors", *_APP)}\
Copy `src` into an app module (package `{package}`) and add to its build script:

```kotlin
// app/build.gradle.kts
android {{
    defaultConfig {{ minSdk = 24 }}
    androidResources {{ noCompress += "tflite" }}
}}
dependencies {{
{_DEPENDENCIES}}}
```

`make android` in a checkout of dqa_keras builds `dqa-android.aar`.
`{name}(context)` runs the model. {_NEEDS[packed]}

How fast it is on a device, with LiteRT's `benchmark_model` in `/data/local/tmp`\
{", and `jni/arm64-v8a/libdqa_delegate.so` taken out of the `.aar`" if packed else ""}:

```sh
adb push src/main/assets/{asset}.tflite /data/local/tmp/
{_lines(packed, "adb push libdqa_delegate.so /data/local/tmp/")}\
adb shell /data/local/tmp/benchmark_model \\
    --graph=/data/local/tmp/{asset}.tflite --num_threads=1{delegate if packed else ""}
```
"""


_APP: Sequence[str] = (
    "This folder is an app that shows class, time and memory for a picture from the",
    "camera or the gallery. Put `dqa-android.aar` into `libs`, then open the folder in",
    "Android Studio, or run `gradle installDebug`: Gradle 8.7, JDK 17, Android SDK 34.",
    "",
    "An app of your own needs neither `MainActivity.kt` nor `Pictures.kt`, nor the",
    "manifest.",
    "",
)

_NEEDS: Sequence[str] = (
    "The `.tflite` holds built-in ops only: it also runs in the\n"
    "interpreter alone, without the `.aar`.",
    "The `.tflite` needs the delegate in the `.aar`: no\ninterpreter runs it alone.",
)
