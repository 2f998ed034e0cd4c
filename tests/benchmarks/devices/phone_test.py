"""`dqa bench phone`: what adb is asked for, and what the phone's program measures.

A script stands in for adb: a folder is the phone's storage, and qemu its processor.
`make phone-test` builds the program; without it, only what adb says is looked at.
"""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.litert.conversion import convert

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "benchmarks"))
PHONE = runpy.run_path(str(ROOT / "benchmarks/devices/phone.py"))
CHECK = PHONE["check_phone"]
PROPERTIES = {
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "One",
    "ro.soc.manufacturer": "QTI",
    "ro.soc.model": "SM8650",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}
ADB = r"""#!/bin/sh
here=$(dirname "$0")
case $1 in
  devices) printf 'List of devices attached\n'; cat "$here/devices" ;;
  push) cp "$2" "$here/phone/${3#/data/local/tmp/}" ;;
  shell)
    case $2 in
      getprop*) sed -n "s/^${2#getprop }=//p" "$here/properties" ;;
      *) sh -c "$(printf %s "$2" | sed -e "s|/data/local/tmp|$here/phone|g" \
        -e 's|\./ld-linux|qemu-aarch64-static -cpu neoverse-n1 ./ld-linux|')" ;;
    esac ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder that answers as adb does; a phone is connected."""
    (tmp_path / "phone").mkdir()
    (tmp_path / "adb").write_text(ADB)
    (tmp_path / "adb").chmod(0o755)
    (tmp_path / "devices").write_text("0123\tdevice\n")
    lines = (f"{name}={value}\n" for name, value in PROPERTIES.items())
    (tmp_path / "properties").write_text("".join(lines))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return tmp_path


def test_a_phone_is_described(phone):
    CHECK()
    assert PHONE["describe"]() == {
        "device": "Acme One",
        "chipset": "QTI SM8650",
        "android": "14 (API 34)",
    }


@pytest.mark.parametrize(
    ("devices", "serial", "rule"),
    [
        ("", None, "finds no phone: connect one"),
        ("a\tdevice\n", "b", "finds no phone called b"),
        ("a\tunauthorized\n", None, "a is unauthorized: unlock it"),
        ("a\toffline\n", None, "a is offline"),
        ("a\tdevice\nb\tdevice\n", None, "several phones.*Received: a, b"),
    ],
)
def test_not_one_phone(phone, monkeypatch, devices, serial, rule):
    (phone / "devices").write_text(devices)
    if serial:
        monkeypatch.setenv("ANDROID_SERIAL", serial)
    with pytest.raises(SystemExit, match=rule):
        CHECK()


def test_one_of_several_phones_is_chosen(phone, monkeypatch):
    (phone / "devices").write_text("a\tdevice\nb\tdevice\n")
    monkeypatch.setenv("ANDROID_SERIAL", "b")
    CHECK()


def test_no_adb(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="adb is not on PATH: install"):
        CHECK()


def test_a_phone_of_32_bits(phone):
    (phone / "properties").write_text("ro.product.cpu.abilist=armeabi-v7a\n")
    with pytest.raises(SystemExit, match="must have a 64-bit Arm processor"):
        CHECK()


def test_a_model_that_is_not_there(phone):
    with pytest.raises(SystemExit, match=r"must be a \.tflite file or one of"):
        PHONE["files_of"](["guess"], phone)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small network as float, int8 and packed files."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    images = np.random.default_rng(0).random((4, 12, 12, 3)).astype(np.float32) * 255
    (folder / "float.tflite").write_bytes(convert(model, "float32"))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    dqa.calibrate(quantized, images, verbose=0)
    export_tflite(quantized, folder / "packed.tflite", mode="packed", samples=images)
    return [str(folder / f"{kind}.tflite") for kind in PHONE["KINDS"]]


needs_program = pytest.mark.skipif(
    not (PHONE["BUILD"] / "version").exists()
    or not shutil.which("qemu-aarch64-static"),
    reason="make phone-test builds the program",
)


@needs_program
def test_three_files_are_measured_in_turns(phone, models, monkeypatch, capsys):
    file = phone / "phone.json"
    flags = ["--rounds=2", "--seconds=0.01", f"--json={file}"]
    monkeypatch.setattr(sys, "argv", ["phone", *models, *flags])
    for _ in range(2):
        PHONE["main"]()
    assert list((phone / "phone").iterdir()) == []  # what was pushed is gone
    printed = capsys.readouterr().out
    assert "Acme One, QTI SM8650, Android 14 (API 34), CPU, one thread" in printed
    runs = json.loads(file.read_text())["runs"]
    assert len(runs) == 2
    assert {run["cores"] for run in runs} == {"not pinned"}
    for run in runs:
        assert [row["precision"] for row in run["files"]] == list(PHONE["KINDS"])
        assert run["files"][0]["to_first"] == 1
        for row, model in zip(run["files"], models, strict=True):
            assert row["bytes"] == Path(model).stat().st_size
            low, high = row["ms_range"]
            assert 0 < low <= row["ms"] <= high
            assert 1 < row["peak_mib"][0] <= row["peak_mib"][1] < 200
    # The same bytes come out each time.
    first, second = ([row["digest"] for row in run["files"]] for run in runs)
    assert first == second


@needs_program
def test_a_file_that_does_not_run_and_cores_that_are_none(phone, models, monkeypatch):
    broken = phone / "broken.tflite"
    broken.write_bytes(Path(models[0]).read_bytes()[:2000])
    arguments = ["--rounds=1", "--seconds=0.01", f"--json={phone / 'phone.json'}"]
    for files, flags, rule in (
        (
            [models[0]],
            ["--cores=1023"],
            "adb shell failed: the phone has no such cores",
        ),
        ([str(broken)], [], "adb shell failed: LiteRtCreate.* of LiteRT failed"),
    ):
        monkeypatch.setattr(sys, "argv", ["phone", *files, *arguments, *flags])
        with pytest.raises(SystemExit, match=rule):
            PHONE["main"]()
    assert not (phone / "phone.json").exists()
