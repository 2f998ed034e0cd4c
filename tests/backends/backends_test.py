"""JAX and PyTorch compute what TensorFlow does, to the bit, each in its own process.

`make test-backends` runs this with DQA_BACKENDS_PYTHON set to an interpreter that has
JAX and PyTorch and no TensorFlow.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
OTHERS = ("jax", "torch")
# Sums over channels in float32, of which a backend may change the order.
INEXACT = ("importance", "training losses")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder to import from that holds the package as an installation has it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "dqa_keras", folder / "dqa_keras")
    shutil.copytree(ROOT / "export", folder / "dqa_keras" / "export")
    return folder


def run(backend, package, arguments):
    python = sys.executable
    if backend != "tensorflow":
        python = os.environ["DQA_BACKENDS_PYTHON"]
    return subprocess.run(
        [python, *arguments],
        cwd=package,  # `-c` would import from here
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(package),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def states(package, tmp_path_factory):
    """What each backend computed, by backend."""
    folder = tmp_path_factory.mktemp("states")
    loaded = {}
    for backend in ("tensorflow", *OTHERS):
        path = folder / f"{backend}.npz"
        done = run(backend, package, [Path(__file__).parent / "states.py", path])
        assert done.returncode == 0, done.stderr
        with np.load(path) as arrays:
            loaded[backend] = dict(arrays)
    return loaded


@pytest.mark.parametrize("backend", OTHERS)
def test_codes_and_calibrations_are_the_same_to_the_bit(states, backend):
    expected, actual = states["tensorflow"], states[backend]
    assert actual.keys() == expected.keys()
    exact = [name for name in expected if not name.endswith(INEXACT)]
    assert len(exact) > 60
    for name in exact:
        assert actual[name].dtype == expected[name].dtype, name
        # Not bytes: what one clip leaves as 0 is -0 behind another.
        np.testing.assert_array_equal(actual[name], expected[name], name)


@pytest.mark.parametrize("backend", OTHERS)
def test_rankings_agree(states, backend):
    scores = [name for name in states["tensorflow"] if name.endswith("importance")]
    assert scores
    for name in scores:
        np.testing.assert_allclose(
            states[backend][name], states["tensorflow"][name], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("backend", ["tensorflow", *OTHERS])
def test_training_through_the_quantizers_lowers_the_loss(states, backend):
    first, last = states[backend]["training losses"]
    assert last < 0.9 * first


@pytest.mark.parametrize("backend", OTHERS)
def test_export_says_that_it_needs_tensorflow(backend, package):
    program = (
        "import keras, dqa_keras as dqa\n"
        "from dqa_keras.export import export_tflite\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])\n"
        "export_tflite(dqa.quantize_model(model, dqa.DQAConfig()), 'm.tflite')\n"
    )
    done = run(backend, package, ["-c", program])
    assert done.returncode != 0
    assert "needs TensorFlow" in done.stderr.splitlines()[-1]


RECONSTRUCT = """
import keras, numpy as np
import dqa_keras as dqa
keras.utils.set_random_seed(0)
layers = [
    keras.Input((8, 8, 4)),
    keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    keras.layers.BatchNormalization(),
    keras.layers.ReLU(),
    keras.layers.Conv2D(8, 3, 2, padding="same"),
    keras.layers.ReLU(),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dense(3),
]
model = keras.Sequential(layers)
x = np.random.default_rng(0).normal(size=(128, 8, 8, 4)).astype("float32")
quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=1, extra_bits=0))
dqa.calibrate(quantized, x, verbose=0)
exact = model.predict(x, verbose=0)
for _ in range(2):
    print(np.square(quantized.predict(x, verbose=0) - exact).sum())
    dqa.reconstruct(quantized, model, x, verbose=0)
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_reconstruction_needs_no_gradients(backend, package):
    done = run(backend, package, ["-c", RECONSTRUCT])
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split())
    assert after < 0.8 * before
