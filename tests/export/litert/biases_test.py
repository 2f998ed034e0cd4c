"""Biases of one number, which the converter leaves behind."""

import keras
import numpy as np
import pytest

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.biases import widen_biases
from dqa_keras.export.litert.conversion import convert
from dqa_keras.export.litert.interpreter import Runner

layers = keras.layers


@pytest.mark.parametrize("kind", [layers.Conv2DTranspose, layers.Conv2D])
def test_a_merged_scalar_counts_for_every_channel(kind):
    inputs = keras.Input((5, 5, 3))
    outputs = kind(4, 2, strides=2, activation="hard_sigmoid")(inputs)
    model = keras.Model(inputs, outputs)
    parsed = flatbuffer.parse(convert(model, "float32"))
    widen_biases(parsed)
    graph = flatbuffer.Graph(parsed)
    (op,) = (op for op in graph.ops if graph.kind(op) in flatbuffer.KERNEL_OPS)
    bias = parsed.subgraphs[0].tensors[op.inputs[flatbuffer.bias_place(graph.kind(op))]]
    assert len(parsed.buffers[bias.buffer].data) == 4 * 4
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
    (output,) = Runner(flatbuffer.serialize(parsed))(x)
    np.testing.assert_allclose(output, model(x), atol=1e-6)
