"""Settings and models shared by the tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Benchmarks import `shared` from there; last, as one of them is named coverage.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "dqa",
    derandomize=True,
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dqa")


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts from the same seed and Keras' default dtype policy."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def images():
    """A few images (N, 8, 8, 3) with values of both signs."""
    return np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def small_cnn():
    """A float model with two quantizable activations; tests must not change it."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, activation="relu", name="first"),
            keras.layers.Conv2D(6, 3, name="linear"),
            keras.layers.Activation("tanh", name="second"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, activation="softmax", name="head"),
        ],
        name="small_cnn",
    )
