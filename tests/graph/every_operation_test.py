"""Nothing is skipped silently: models of random layers and operators."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from keras import ops

import dqa_keras as dqa
from dqa_keras.graph import calls
from dqa_keras.graph.layer_kinds import Kind, kind
from dqa_keras.layers import Quantizer

# From (N, 4, 4, 4) to the same shape.
UNARY = [
    lambda x: kl.Conv2D(4, 3, padding="same", activation="relu")(x),
    lambda x: kl.Conv2D(4, 1, activation=kl.LeakyReLU())(x),
    lambda x: kl.DepthwiseConv2D(3, padding="same")(x),
    lambda x: kl.Dense(4, activation="tanh")(x),
    lambda x: kl.BatchNormalization()(x),
    lambda x: kl.LayerNormalization()(x),
    lambda x: kl.MaxPooling2D(3, 1, padding="same")(x),
    lambda x: kl.Dropout(0.5)(x),
    lambda x: kl.Permute((2, 1, 3))(x),
    lambda x: kl.TimeDistributed(kl.Dense(4, activation="relu"))(x),
    lambda x: kl.PReLU()(x),
    lambda x: ops.relu(x),
    lambda x: ops.exp(ops.clip(x, -3, 1)),
    lambda x: 0.5 * x + 1,
    lambda x: 1 / (ops.abs(x) + 1),
    lambda x: ops.flip(x, 1),
    lambda x: ops.softmax(x[..., ::-1]),
    lambda x: keras.Sequential([kl.Dense(4), kl.ReLU(), kl.Dense(4)])(x),
]
BINARY = [
    lambda a, b: kl.Add()([a, b]),
    lambda a, b: kl.Multiply()([a, b]),
    lambda a, b: kl.Concatenate()([a, b])[..., ::2],
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: ops.maximum(a, b),
    lambda a, b: ops.where(a > b, a, b),
    lambda a, b: ops.concatenate([a, b], 1)[:, ::2],
]


@st.composite
def models(draw):
    """A random graph; each step reads one or two of the tensors so far."""
    inputs = keras.Input((4, 4, 4))
    tensors = [inputs]
    for _ in range(draw(st.integers(1, 6))):
        function = draw(st.sampled_from([*UNARY, *BINARY]))
        count = 1 if function in UNARY else 2
        read = [draw(st.sampled_from(tensors)) for _ in range(count)]
        tensors.append(function(*read))
    return keras.Model(inputs, kl.GlobalAveragePooling2D()(tensors[-1]))


@pytest.mark.filterwarnings("ignore:no quantizer was put into model")
@given(models(), st.booleans())
@settings(max_examples=25)
def test_every_operation_is_quantized_reported_or_known_to_need_none(model, merges):
    config = dqa.DQAConfig(bits=4, quantize_merges=merges)
    quantized = dqa.quantize_model(model, config)
    reported = {skip.name for skip in dqa.skipped(quantized)}
    assert all(skip.reason for skip in dqa.skipped(quantized))
    graph = calls.flatten(quantized)
    stored = {
        id(x)
        for call in graph.calls
        if isinstance(call.operation, Quantizer)
        for x in call.inputs
    }
    for call in graph.calls:
        operation = call.operation
        if isinstance(operation, Quantizer) or id(call.outputs[0]) in stored:
            continue
        if operation.name in reported or "float" not in call.outputs[0].dtype:
            continue
        args, kwargs = call.arguments
        assert kind(operation, (*args, kwargs)) in (Kind.LINEAR, Kind.MOVES), operation
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    assert np.asarray(quantized(x)).tobytes() == np.asarray(model(x)).tobytes()
