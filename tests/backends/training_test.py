"""The trainer on PyTorch, with the layers that it is faster with there."""

import os
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]

# Two batches' worth of what training does to weights and moving statistics.
_SAME = """
import keras, numpy as np
from dqa_keras.models import mobilenet_v2, torch_layers, unet

keras.utils.set_random_seed(0)
for model in (mobilenet_v2(), unet(filters=2, depth=2, image_size=(18, 24))):
    fast = torch_layers.for_training(model)
    kinds = {type(layer).__module__ for layer in fast.layers if layer.weights}
    assert "dqa_keras.models.torch_layers" in kinds, kinds
    pixels = np.random.default_rng(0).random((4, *model.input_shape[1:])) * 255
    x = keras.ops.convert_to_tensor(pixels, "float32")
    for training in (True, False):
        ours, theirs = (net(x, training=training).detach() for net in (fast, model))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-2)
    # PyTorch's moving variance is the unbiased one.
    for ours, theirs in zip(fast.variables, model.variables, strict=True):
        a, b = (value.value.detach().numpy() for value in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-3)
"""


def torch(*arguments):
    done = subprocess.run(
        [os.environ["DQA_BACKENDS_PYTHON"], *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_layers_give_what_keras_gives():
    torch("-c", _SAME)


def test_it_trains_on_pytorch(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.repeat(random.integers(0, 2, (16, 4, 4)), 4, 1), 4, 2)
    arrays = {"x": np.repeat(labels[..., None] * 200, 3, -1), "y": labels}
    np.savez(
        tmp_path / "data.npz",
        **{
            f"{name}_{part}": values.astype(np.uint8)
            for name, values in arrays.items()
            for part in ("train", "test")
        },
    )
    told = torch(
        "-m",
        "dqa_keras.models.training",
        "--model=unet",
        "--epochs=8",
        f"--data={tmp_path}/data.npz",
        f"--folder={tmp_path}/run",
        f"--output={tmp_path}/weights.npz",
    )
    # Eight epochs tell two shades apart, and nobody else.
    assert float(told.split()[-2]) > 50
    assert (tmp_path / "weights.npz").stat().st_size > 0
