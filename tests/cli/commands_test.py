"""The `dqa` command: real processes for the way through, in-process for mistakes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from dqa_launcher import COMMANDS

from dqa_keras.cli import main
from dqa_keras.export import read_metadata

DQA = Path(sys.executable).with_name("dqa")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A trained model and its data, as a user has them."""
    folder = tmp_path_factory.mktemp("user")
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    # Three kinds of stripes under noise.
    x = random.normal(0, 0.3, (300, 9, 9, 1)).astype(np.float32)
    for image, kind in zip(x, y, strict=True):
        image[kind::3, :, 0] += 1
    model = keras.Sequential(
        [
            keras.Input((9, 9, 1)),
            keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(x[:200], y[:200], epochs=10, verbose=0)
    model.save(folder / "model.keras")
    np.savez(
        folder / "data.npz",
        x_train=x[:200],
        y_train=y[:200],
        x_test=x[200:],
        y_test=y[200:],
    )
    return folder


def dqa(*arguments):
    return subprocess.run(
        [DQA, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_from_a_keras_model_to_a_verified_tflite(files, tmp_path):
    output = tmp_path / "model.tflite"
    done = dqa(
        "quantize",
        *("--model", files / "model.keras", "--data", files / "data.npz"),
        *("--bits", 4, "--output", output),
    )
    assert done.returncode == 0, done.stderr
    assert "1 quantizers agree with Keras to the bit" in done.stdout
    figures = [
        float(line.split()[-2])
        for line in done.stdout.splitlines()
        if line.startswith("accuracy")
    ]
    assert len(figures) == 3
    assert min(figures) > 90
    (agreement,) = re.findall(r"^agreement with float: +([\d.]+) %$", done.stdout, re.M)
    assert float(agreement) > 90
    assert re.search(
        r"^costs the output most: +conv_dqa \([\d.]+ dB\)$", done.stdout, re.M
    )
    # Nothing of TensorFlow's start-up reaches the user.
    assert "cuda" not in (done.stdout + done.stderr).lower()
    assert list(tmp_path.iterdir()) == [output]

    shown = dqa("inspect", output)
    assert shown.returncode == 0
    assert "conv_dqa" in shown.stdout
    printed = dqa("inspect", "--json", output)
    assert json.loads(printed.stdout) == read_metadata(output).config


def test_by_way_of_a_keras_file(files, tmp_path):
    middle, output = tmp_path / "quantized.keras", tmp_path / "model.tflite"
    quantize = dqa(
        "quantize",
        *("--model", files / "model.keras", "--data", files / "data.npz"),
        *("--preset", "paper", "--method", "direct", "--output", middle),
    )
    assert quantize.returncode == 0, quantize.stderr
    export = dqa(
        "export", "--model", middle, "--output", output, "--labels", "top,middle,bottom"
    )
    assert export.returncode == 0, export.stderr
    metadata = read_metadata(output)
    assert metadata.config["labels"] == ["top", "middle", "bottom"]
    assert metadata.tables["conv_direct"].bits == 4


def test_a_packed_model(files, tmp_path):
    middle, output = tmp_path / "quantized.keras", tmp_path / "model.tflite"
    quantize = dqa(
        "quantize",
        *("--model", files / "model.keras", "--data", files / "data.npz"),
        *("--output", middle),
    )
    assert quantize.returncode == 0, quantize.stderr
    samples = tmp_path / "samples.npy"
    np.save(samples, np.load(files / "data.npz")["x_train"][:4])
    export = dqa(
        *("export", "--model", middle, "--output", output, "--samples", samples),
        *("--mode", "packed", "--strict"),
    )
    assert export.returncode == 0, export.stderr
    assert "packed region: 3 operations, 1 quantizers" in export.stdout
    printed = dqa("inspect", output, "--plan")
    assert "conv 3x3" in printed.stdout
    assert "conv 7x7" in printed.stdout  # the dense layer


def test_evaluate_goes_on_where_it_stopped(files, tmp_path):
    figures = tmp_path / "figures.json"
    arguments = (
        "evaluate",
        *("--model", files / "model.keras", "--data", files / "data.npz"),
        *("--presets", "default", "--methods", "direct,dqa", "--json", figures),
    )
    first = dqa(*arguments, "--bits", "3")
    assert first.returncode == 0, first.stderr
    rows = json.loads(figures.read_text())["rows"]
    assert set(rows) == {"float", "default direct 3", "default dqa 3"}
    assert rows["default direct 3"]["stored_bits"] == 3.0
    assert 3.0 < rows["default dqa 3"]["stored_bits"] < 3.7
    # A finished row is taken from the file: a figure planted there comes back.
    content = json.loads(figures.read_text())
    content["rows"]["default dqa 3"]["accuracy"] = 12.34
    figures.write_text(json.dumps(content))
    second = dqa(*arguments, "--bits", "3", "--int8")
    assert "12.34" in second.stdout
    rows = json.loads(figures.read_text())["rows"]
    # Eight bits stay closer to the float model than three do.
    int8, coarse = rows["LiteRT int8 8"], rows["default direct 3"]
    assert int8["output_error"] < coarse["output_error"]
    assert int8["agreement"] >= coarse["agreement"] > 50
    assert "LiteRT   int8" in second.stdout


def fails(capsys, *arguments):
    """Runs a command that must fail and gives exit code and standard error."""
    with pytest.raises(SystemExit) as stop:
        main.run([str(argument) for argument in arguments])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--bits": 0}, "bits must be in 1..8. Received: bits=0"),
        ({"--bits": 7, "--extra_bits": 2}, "bits + extra_bits must be at most 8"),
        ({"--model": "nowhere.keras"}, "no such model"),
        ({"--data": "nowhere.npz"}, "cannot read nowhere.npz"),
        ({"--data": "no/such/folder"}, "neither a folder nor an .npz"),
        ({"--data": "no_such_dataset"}, "cannot open the TFDS dataset"),
        ({"--output": "model.onnx"}, "--output must end in .tflite or .keras"),
        ({"--output": "/nowhere/m.tflite"}, "no such folder /nowhere"),
        ({"--method": "guess"}, "--method"),
        ({"--no_such_flag": 1}, "no_such_flag"),
        ({"--model": None, "--output": None}, "quantize needs --model, --output (see"),
        ({"--model": __file__}, "It must be a whole .keras file"),
        ({"--data": f"{__file__}.npz"}, "cannot read"),
        ({"--checkpoint": "/nowhere/c"}, "no such folder /nowhere"),
        ({"--workers": "true"}, "needs the environment variable TF_CONFIG"),
        ({"--weights": "w.npz"}, "--weights is for the built-in models"),
        ({"--strict": "true"}, "strict=True needs mode='packed'"),
        ({"--skips": "coded"}, "skips='coded' needs mode='packed'"),
        ({"--mode": "packed", "--tflite_weights": "int8"}, "leave weights at"),
        ({"--output": "m.keras", "--mode": "packed"}, "--mode say how a .tflite"),
        ({"--limit": 2**63}, "--limit"),
        ({"--calibration_images": 10**30}, "--calibration_images"),
        ({"--limit": -1}, "--limit"),
        ({"--data": ""}, "a data set must have a name or a path"),
        ({"--output": ""}, "--output must end in .tflite or .keras"),
        ({"--checkpoint": "."}, "cannot write"),
    ],
)
def test_a_mistake_gives_one_line_and_no_file(
    files, tmp_path, monkeypatch, capsys, changes, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    options = {
        "--model": files / "model.keras",
        "--data": files / "data.npz",
        "--output": "model.tflite",
        **changes,
    }
    words = [f"{k}={v}" for k, v in options.items() if v is not None]
    code, text = fails(capsys, "quantize", *words)
    assert code == 2
    last = text.strip().splitlines()[-1]
    assert last.startswith("dqa: ")
    assert message in last
    assert list(tmp_path.iterdir()) == []


def test_inspect_refuses_foreign_files(tmp_path, capsys):
    path = tmp_path / "picture.tflite"
    path.write_bytes(b"not a model")
    code, text = fails(capsys, "inspect", path)
    assert (code, text.count("\n")) == (2, 1)
    assert "not a .tflite file" in text


@pytest.mark.parametrize(
    "text", ["workers", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}']
)
def test_a_tf_config_without_this_worker_is_refused(files, monkeypatch, capsys, text):
    monkeypatch.setenv("TF_CONFIG", text)
    code, error = fails(
        capsys,
        "quantize",
        *("--model", files / "model.keras", "--data", files / "data.npz"),
        *("--output", "model.keras", "--workers"),
    )
    assert code == 2
    assert error.strip().endswith(f"Received: {text}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_itself(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main.run([name, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Example:" in text
    assert f"dqa {name}" in text


def test_an_unknown_command_names_the_known_ones(capsys):
    code, text = fails(capsys, "quantise")
    assert code == 2
    assert "unknown command 'quantise'. Commands: quantize" in text
    assert "Did you mean quantize?" in text


def test_a_benchmark_has_a_help_of_its_own(capsys):
    with pytest.raises(SystemExit) as end:
        main.run(["bench", "cost", "--help"])
    assert end.value.code == 0
    assert "--rounds" in capsys.readouterr().out


def test_help_and_typing_errors_do_not_wait_for_tensorflow():
    checked = "import sys, dqa_launcher\nsys.argv = ['dqa', {!r}]\n" + (
        "try:\n    dqa_launcher.run()\nfinally:\n    assert 'keras' not in sys.modules"
    )
    for word, status in (("--help", 0), ("quantise", 2)):
        done = subprocess.run(
            [sys.executable, "-c", checked.format(word)],
            capture_output=True,
            check=False,
        )
        assert done.returncode == status, done.stderr


def test_a_model_without_activations_is_named(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten()]).save("m.keras")
    arguments = ("--model", "m.keras", "--data", files / "data.npz")
    code, text = fails(capsys, "quantize", *arguments, "--output", "m.tflite")
    assert code == 2
    assert "m.keras has no activation to quantize" in text


def test_a_model_with_code_of_its_own_is_sent_to_python(tmp_path, capsys):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((4,)), Twice()]).save(path)
    code, text = fails(capsys, "inspect", path)
    assert code == 2
    assert "is quantized and exported in Python" in text


def test_a_run_that_falls_short_exits_with_one(monkeypatch, capsys, tmp_path):
    from dqa_keras.cli import demo

    monkeypatch.setattr(demo, "_EPOCHS", 0)
    monkeypatch.setattr(demo, "_BITS", (4,))
    monkeypatch.setattr(demo.shared_flags, "METHODS", ("dqa",))
    code, text = fails(capsys, "demo", "--output", tmp_path)
    assert code == 1
    assert "the float model reached" in text


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--bits=", "--bits must name at least one"),
        ("--bits=4,", "--bits must be whole numbers"),
        ("--bits=\u00b2", "--bits must be whole numbers"),
        ("--methods=", "--methods must name at least one"),
        ("--presets=", "--presets must name at least one"),
        ("--json=/nowhere/f.json", "no such folder /nowhere"),
    ],
)
def test_a_mistake_in_evaluate_is_found_before_the_work(capsys, flag, message):
    arguments = ("--model", "no.keras", "--data", "no.npz", flag)
    code, text = fails(capsys, "evaluate", *arguments)
    assert code == 2
    assert message in text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "3",
        "null",
        '{"rows": 3}',
        '{"rows": {"float": 3}}',
        '{"rows": {"float": {}}}',
        '{"rows": {"float": {"accuracy": "high"}}}',
        '{"rows": {"float": {"accuracy": null}}}',
        '{"rows": {"dqa 3": {"accuracy": 3}}}',
        '{"rows": {"float": {"accuracy": NaN}}}',
        f'{{"rows": {{"float": {{"accuracy": 1{"0" * 400}}}}}}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_of_other_figures_is_kept(files, tmp_path, capsys, content):
    path = tmp_path / "figures.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    before = path.read_bytes()
    arguments = ("--model", files / "model.keras", "--data", files / "data.npz")
    code, text = fails(capsys, "evaluate", *arguments, "--bits=3", "--json", path)
    assert code == 2
    assert text == f"dqa: {path} is not a file of dqa evaluate: move it away\n"
    assert path.read_bytes() == before


def _head(x):
    return keras.layers.Dense(3)(keras.layers.Flatten()(x))


@pytest.mark.parametrize("command", ["quantize", "evaluate", "report"])
@pytest.mark.parametrize(
    "outputs",
    [
        lambda x: [_head(x), _head(x)],
        lambda x: {"a": _head(x)},
        lambda x: {"a": _head(x), "b": _head(x)},
    ],
)
def test_other_outputs_are_for_python(files, tmp_path, capsys, command, outputs):
    image = keras.Input((9, 9, 1))
    model = tmp_path / "m.keras"
    keras.Model(image, outputs(keras.layers.ReLU()(image))).save(model)
    named = [model] if command == "report" else ["--model", model]
    output = [] if command == "evaluate" else ["--output", tmp_path / "m.tflite"]
    data = ["--data", files / "data.npz"]
    code, text = fails(capsys, command, *named, *output, *data)
    assert (code, text.count("\n")) == (2, 1)
    assert "one input and one output" in text
    assert list(tmp_path.iterdir()) == [model]


def test_labels_of_another_kind_are_found_before_the_work(files, tmp_path, capsys):
    image = keras.Input((9, 9, 1))
    model = tmp_path / "m.keras"
    keras.Model(image, keras.layers.Conv2D(3, 3, activation="relu")(image)).save(model)
    arguments = ("--model", model, "--data", files / "data.npz")
    code, text = fails(capsys, "evaluate", *arguments)
    assert code == 2
    assert "labels must be class numbers, one for each" in text


def test_images_of_another_size_are_found_before_the_work(files, tmp_path, capsys):
    data = tmp_path / "other.npz"
    np.savez(data, x=np.zeros((4, 8, 10, 1)), y=np.zeros(4))
    code, text = fails(
        capsys, "evaluate", "--model", files / "model.keras", "--data", data
    )
    assert code == 2
    assert "inputs of shape (None, 9, 9, 1). Received: (None, 8, 10, 1)" in text


def test_a_broken_image_is_named(files, tmp_path, capsys):
    for name in ("left", "right", "top"):  # as many as the model has scores
        (tmp_path / "images" / name).mkdir(parents=True)
    path = tmp_path / "images" / "top" / "a.png"
    path.touch()
    model = tmp_path / "m.keras"
    image = keras.Input((9, 9, 3))
    keras.Model(image, _head(keras.layers.ReLU()(image))).save(model)
    arguments = ("--model", model, "--data", tmp_path / "images")
    code, text = fails(capsys, "evaluate", *arguments)
    assert (code, text.count("\n")) == (2, 1)
    assert text == f"dqa: {path} is no image that can be read: the file is empty\n"


@pytest.mark.parametrize("content", [b"", b"no picture"])
@pytest.mark.parametrize("command", ["quantize", "report"])
def test_a_broken_image_is_named_in_calibration_too(
    tmp_path, monkeypatch, capsys, command, content
):
    monkeypatch.chdir(tmp_path)
    for name in ("top", "way"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "a.png").write_bytes(content)
    image = keras.Input((9, 9, 3))
    head = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.ReLU()(image)))
    keras.Model(image, head).save("m.keras")
    words = {"quantize": ["--model=m.keras"], "report": ["m.keras"]}[command]
    flags = ("--data=images", "--output=o.tflite")
    code, text = fails(capsys, command, *words, *flags)
    assert code == 2
    line = text.splitlines()[-1]
    assert re.match(r"dqa: images/\w+/a.png is no image that can be read: \w", line)
    assert "{{" not in line
    assert "report it" not in line


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("quantize --model=m.keras --data=d.npz", "m.keras"),
        ("quantize --model=m.keras --data=d.npz", "link.keras"),
        ("export --model=m.tflite --samples=x.npy", "x.npy"),
        ("export --model=m.tflite", "m.tflite"),
        ("report m.keras --data=d.npz", "m.keras"),
        ("report m.tflite --data=d.npz", "d.npz"),
    ],
)
def test_what_a_command_reads_is_not_written_over(
    tmp_path, monkeypatch, capsys, command, place
):
    monkeypatch.chdir(tmp_path)
    for name in ("m.keras", "m.tflite", "d.npz"):
        Path(name).write_bytes(b"mine")
    Path("link.keras").symlink_to("m.keras")
    np.save("x.npy", np.zeros((1, 9, 9, 1)))
    before = Path(place).read_bytes()
    code, text = fails(capsys, *command.split(), f"--output={place}")
    assert code == 2
    assert text == f"dqa: cannot write {place}: the command reads it. " + (
        "Name another file.\n"
    )
    assert Path(place).read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("quantize", "--model=m", "--data=d", "--output=o.tflite", "--checkpoint="),
        ("quantize", "--model=m", "--data=d", "--output=o.tflite", "--data_dir="),
        ("evaluate", "--model=m", "--data=d", "--json="),
        ("export", "--model=m", "--output=o.tflite", "--samples="),
        ("report", "m", "--data=d", "--overlay="),
        ("demo", "--output="),
    ],
)
def test_an_empty_path_is_not_the_same_as_none(
    tmp_path, monkeypatch, capsys, arguments
):
    monkeypatch.chdir(tmp_path)
    code, text = fails(capsys, *arguments)
    assert (code, text.count("\n")) == (2, 1)
    flag = arguments[-1].rstrip("=")
    assert re.match(rf"dqa: {flag} must (not be empty|name a folder)", text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["quantize", "evaluate", "report"])
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (3, [0, 1, 5], "labels must be in 0..2, as the model has 3 outputs"),
        (1, [0, 1, 1], "which of several scores is the largest"),
        (1, [0, 0, 0], "which of several scores is the largest"),
        (4, "folder", "one label for each channel of the output: 4"),
        (2, "folder", "one label for each channel of the output: 2"),
        (None, [0, 1, 2], "has no declared inputs"),
    ],
)
def test_labels_that_do_not_fit_are_found_before_calibration(
    tmp_path, monkeypatch, capsys, command, scores, labels, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dqa_keras.calibrate", None)
    if labels == "folder":
        for name in ("a", "b", "c"):
            (tmp_path / "data" / name).mkdir(parents=True)
            (tmp_path / "data" / name / "1.png").touch()
        data = "--data=data"
    else:
        np.savez("d.npz", x=np.zeros((3, 4, 4, 3)), y=labels)
        data = "--data=d.npz"
    layers = keras.layers
    model = [layers.ReLU(), layers.Flatten(), layers.Dense(scores or 3)]
    declared = [keras.Input((4, 4, 3))] if scores else []
    keras.Sequential([*declared, *model]).save("m.keras")
    words = ["m.keras"] if command == "report" else ["--model=m.keras"]
    if command == "quantize":
        words.append("--output=o.keras")
    code, text = fails(capsys, command, *words, data)
    assert (code, message in text.splitlines()[-1]) == (2, True), text


def test_what_no_command_foresaw_is_one_line(files, monkeypatch, capsys):
    def stumble(values, arguments):
        raise TypeError("a number\nis missing")

    monkeypatch.setattr("dqa_keras.cli.inspect.main", stumble)
    code, text = fails(capsys, "inspect", "m.tflite")
    assert (code, text.count("\n")) == (2, 1)
    assert "TypeError: a number (in commands_test.py, line" in text
    assert "please report it" in text


@pytest.mark.parametrize("arguments", [("--help",), ("inspect", "--runtime")])
def test_output_that_finds_no_place(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [DQA, *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert re.fullmatch(rb"dqa: .*No space left on device\n", done.stderr)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [DQA, *arguments], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"")
