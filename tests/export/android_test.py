"""The folder for an Android app. `make android` compiles and runs what it holds."""

import re
import types
from pathlib import Path
from xml.etree import ElementTree

import adb_lines
import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import (
    android,
    android_names,
    export_android,
    export_tflite,
    read_metadata,
)
from dqa_keras.export.android import FLATBUFFERS, TFLITE
from dqa_keras.export.android_app import app_files

ROOT = Path(__file__).parents[2]


def adb(readme):
    (block,) = re.findall(r"^```sh\n(.*?)^```$", readme, re.M | re.S)
    return block


def contents(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(quantized_cnn, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    report = export_android(
        quantized_cnn,
        folder,
        package="org.example.shop",
        labels=["cat", "dog", "owl"],
        samples=pictures[:2],
    )
    assert Path(report.path).is_file()
    return folder


def test_a_folder_holds_what_an_app_needs(folder):
    assert contents(folder) == {
        "README.md",
        "build.gradle.kts",
        "settings.gradle.kts",
        "src/main/AndroidManifest.xml",
        "src/main/assets/small_cnn.tflite",
        "src/main/assets/small_cnn_labels.txt",
        "src/main/kotlin/org/example/shop/MainActivity.kt",
        "src/main/kotlin/org/example/shop/Pictures.kt",
        "src/main/kotlin/org/example/shop/SmallCnn.kt",
    }
    assets = folder / "src/main/assets"
    assert (assets / "small_cnn_labels.txt").read_text() == "cat\ndog\nowl\n"
    assert read_metadata(assets / "small_cnn.tflite").config["model"] == "small_cnn"
    source = (folder / "src/main/kotlin/org/example/shop/SmallCnn.kt").read_text()
    assert source.startswith("package org.example.shop\n")
    assert 'DqaClassifier(context, "small_cnn.tflite")' in source
    assert "class SmallCnn(" in source
    readme = (folder / "README.md").read_text()
    assert f'implementation("{TFLITE}")' in readme
    assert f'implementation("{FLATBUFFERS}")' in readme
    assert "--graph=/data/local/tmp/small_cnn.tflite" in readme
    assert "runs in the\ninterpreter alone" in readme
    assert "libdqa_delegate" not in readme
    adb_lines.check(adb(readme), folder)


def test_a_former_export_is_replaced(folder, quantized_cnn, pictures):
    export_android(quantized_cnn, folder, mode="packed", samples=pictures)
    readme = (folder / "README.md").read_text()
    assert "--external_delegate_path=/data/local/tmp/libdqa_delegate.so" in readme
    assert "adb push libdqa_delegate.so" in readme
    adb_lines.check(adb(readme), folder, apart={"libdqa_delegate.so"})
    assert "src/main/kotlin/com/example/app/SmallCnn.kt" in contents(folder)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["classes", "segments", "tensors"])
def test_sources_are_whole(kind, packed):
    source = android._source(kind, "a.b", "Name", "asset", packed)
    assert not re.search(r"\{\w+\}|\{\{|\}\}", source.replace("${", "$"))
    assert source.count("{") == source.count("}")
    if kind == "tensors":
        assert ("addDelegate(delegate)" in source) == packed


@pytest.mark.parametrize("kind", ["classes", "segments"])
def test_an_app_is_whole(kind):
    files = app_files(kind, "a.b", "Name", "asset", android._DEPENDENCIES)
    for path, text in files.items():
        assert not re.search("<<|>>", text), path
        assert text.count("{") == text.count("}"), path
    names = {
        word
        for path, text in files.items()
        if path.endswith(".kt")
        for word in re.findall(r"^import [\w.]+\.(\w+)$", text, re.M)
    }
    # A model's class has none of their names.
    for name in names:
        asset = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert android_names.class_name(asset) == f"{name}Model"
    ElementTree.fromstring(files["src/main/AndroidManifest.xml"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"),
    [
        ([(8, 8, 3)], [(5,)], "classes"),
        ([(8, 8, 1)], [(8, 8, 5)], "segments"),
        ([(8, 8, 4)], [(5,)], "tensors"),
        ([(None, None, 3)], [(None, None, 5)], "tensors"),
        ([(9,)], [(5,)], "tensors"),
        ([(8, 8, 3), (8, 8, 3)], [(5,)], "tensors"),
        ([(8, 8, 3)], [(5,), (5,)], "tensors"),
    ],
)
def test_the_kind_of_a_model(inputs, outputs, kind):
    def tensors(shapes):
        return [keras.KerasTensor((None, *shape)) for shape in shapes]

    model = types.SimpleNamespace(inputs=tensors(inputs), outputs=tensors(outputs))
    assert android._kind(model) == kind


@pytest.mark.parametrize(
    "package", ["app", "com.Example", "com.example.", "com.in.app", "com.new", "a b.c"]
)
def test_a_package_must_be_one(package, quantized_cnn, tmp_path):
    with pytest.raises(ValueError, match=r"package must be .* Received: "):
        export_android(quantized_cnn, tmp_path / "out", package=package)
    assert contents(tmp_path) == set()


def test_what_is_not_ours_is_left_alone(quantized_cnn, tmp_path):
    (tmp_path / "README.md").write_text("# My app\n")
    with pytest.raises(ValueError, match="must be new, empty, or hold a former"):
        export_android(quantized_cnn, tmp_path)
    with pytest.raises(ValueError, match="it is a file"):
        export_android(quantized_cnn, tmp_path / "README.md")
    with pytest.raises(ValueError, match="cannot write"):
        export_android(quantized_cnn, tmp_path / "no" / "where")
    assert contents(tmp_path) == {"README.md"}


def test_a_failed_export_leaves_nothing(quantized_cnn, tmp_path):
    with pytest.raises(ValueError, match="mode must be"):
        export_android(quantized_cnn, tmp_path / "out", mode="fast")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "normalization",
    [([0.5], [0.0]), ([0.5], [1.0, 1.0]), ([], []), ([np.nan], [1]), ([[0]], [[1]])],
)
def test_a_normalization_that_is_none(normalization, quantized_cnn, tmp_path):
    with pytest.raises(ValueError, match="normalization must be means"):
        export_tflite(quantized_cnn, tmp_path / "m.tflite", normalization=normalization)


def test_versions_are_those_that_the_library_is_tested_with():
    pom = (ROOT / "export/android/pom.xml").read_text()
    docs = (ROOT / "docs/android.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for dependency, name in ((TFLITE, "tflite"), (FLATBUFFERS, "flatbuffers")):
        version = dependency.rsplit(":", 1)[1]
        assert f"<{name}.version>{version}</{name}.version>" in pom
        assert f'implementation("{dependency}")' in docs
    assert f'implementation("{TFLITE}")' in readme


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("string", "StringModel"),
        ("any", "AnyModel"),
        ("Array", "ArrayModel"),
        ("illegal_argument_exception", "IllegalArgumentExceptionModel"),
        ("array-list", "ArrayListModel"),
        ("object", "ObjectModel"),
        ("context", "ContextModel"),
        ("bitmap", "BitmapModel"),
        ("auto closeable", "AutoCloseableModel"),
        ("main_activity", "MainActivityModel"),
        ("pictures", "PicturesModel"),
        ("button", "ButtonModel"),
        ("dqa_classifier", "DqaClassifierModel"),
        ("strings", "Strings"),
    ],
)
def test_a_class_hides_none_of_kotlins_own(model, name):
    asset = re.sub(r"[^a-z0-9]+", "_", model.lower())
    assert android_names.class_name(asset) == name


def test_a_model_called_string_gets_a_class_of_its_own(small_cnn, pictures, tmp_path):
    model = keras.Sequential(
        [keras.Input((12, 12, 1)), *small_cnn.layers], name="string"
    )
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=3))
    dqa.calibrate(model, pictures, verbose=0)
    export_android(
        model, tmp_path / "out", samples=pictures[:1], labels=["é", "b", "c"]
    )
    (source,) = (tmp_path / "out").rglob("StringModel.kt")
    assert "class StringModel(context: Context)" in source.read_text()
    (labels,) = (tmp_path / "out").rglob("*_labels.txt")
    assert labels.read_bytes() == "é\nb\nc\n".encode()
