"""Models of every floating type export as what they compute in float32."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.litert.float32 import computing_in_float32

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)


def network(policy):
    """Layers that keep what they cast: normalizations, a cell, a model inside."""
    keras.utils.set_random_seed(0)
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3))
        norm = layers.Normalization()
        norm.adapt(IMAGES)
        x = layers.Conv2D(8, 3)(norm(inputs))
        x = skip = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2DTranspose(8, 2, activation="hard_sigmoid")(x)
        x = keras.ops.cast(x, keras.config.dtype_policy().compute_dtype)
        x = layers.LayerNormalization()(layers.Cropping2D(((1, 0), (1, 0)))(x) + skip)
        inner = keras.Sequential(
            [keras.Input(x.shape[1:]), layers.SeparableConv2D(4, 3, activation="silu")]
        )
        x = layers.Flatten()(inner(x))
        return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    finally:
        keras.config.set_dtype_policy(default)


@pytest.fixture(
    scope="module", params=["mixed_float16", "float16", "mixed_bfloat16", "float64"]
)
def quantized(request):
    model = dqa.quantize_model(network(request.param), dqa.DQAConfig(bits=4))
    dqa.calibrate(model, IMAGES, verbose=0)
    return request.param, model


@pytest.mark.parametrize("mode", ["builtin", "packed"])
def test_models_of_other_floats_export(quantized, mode, tmp_path):
    policy, model = quantized
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode=mode, samples=IMAGES[:4])
    assert report.quantizers == 3
    assert report.max_difference < (1e-5 if mode == "builtin" else 0.1)
    kinds = {layer.compute_dtype for layer in model._flatten_layers()}
    assert keras.dtype_policies.get(policy).compute_dtype in kinds  # as it was
    if mode == "builtin":
        interpreter = Interpreter(str(path))
        ends = interpreter.get_input_details() + interpreter.get_output_details()
        assert {end["dtype"] for end in ends} == {np.float32}


def test_inputs_of_other_floats_become_float32(tmp_path):
    inputs = keras.Input((4,), dtype="float64", name="numbers")
    hidden = layers.Dense(8, activation="relu", dtype="float64")(inputs)
    model = keras.Model(inputs, layers.Dense(2, dtype="float64")(hidden))
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    x = np.random.default_rng(0).normal(size=(8, 4))
    dqa.calibrate(model, x, verbose=0)
    assert export_tflite(model, tmp_path / "m", samples=x).max_difference < 1e-5
    assert export_tflite(model, tmp_path / "m").max_difference < 1e-5
    assert model.inputs[0].dtype == "float64"


def test_a_model_is_as_before_after_an_error():
    model = network("mixed_float16")
    before = [layer.dtype_policy for layer in model._flatten_layers()]

    def fail():
        with computing_in_float32(model):
            kinds = {layer.compute_dtype for layer in model._flatten_layers()}
            assert kinds == {"float32"}
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    after = [layer.dtype_policy for layer in model._flatten_layers()]
    assert all(one is other for one, other in zip(before, after, strict=True))
