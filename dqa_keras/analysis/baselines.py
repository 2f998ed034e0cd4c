"""Direct quantization at several numbers of bits, to compare a model with."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from dqa_keras import quantizers
from dqa_keras.backend.compile import compiled
from dqa_keras.calibration import ranges
from dqa_keras.calibration.observers import Observer
from dqa_keras.graph import hooks
from dqa_keras.layers import Quantizer, quantizer_layers

Measured = TypeVar("Measured")


class _Grid:
    """Scale and range of one activation's codes, as variables of a graph."""

    def __init__(self, channels: int) -> None:
        def variable() -> Any:
            return keras.Variable(np.ones(channels, np.float32), trainable=False)

        self.scale, self.inverse_scale = variable(), variable()
        self.q_min, self.q_max = variable(), variable()

    def assign(self, layer: Quantizer, observer: Observer, bits: int) -> None:
        signed = ranges.signedness(observer, bits, 0, layer.config)
        scale = ranges.scales(observer, bits, signed, layer.config)
        self.scale.assign(scale)
        self.inverse_scale.assign(np.float32(1) / scale)
        low, high = quantizers.code_range(bits, 0, np.zeros(scale.size, bool), signed)
        self.q_min.assign(low)
        self.q_max.assign(high)

    def stored(self, x: Any) -> Any:
        q = quantizers.encode(
            ops.cast(x, "float32"), self.inverse_scale, self.q_min, self.q_max
        )
        return quantizers.decode(q, self.scale)


def direct(
    model: keras.Model,
    observers: Mapping[str, Observer],
    bits: Iterable[int],
    measure: Callable[[Callable[[Any], Any]], Measured],
) -> dict[int, Measured]:
    """Measures a model with `direct` in place of every quantizer.

    One pass of statistics serves every number of bits. The model computes what
    `quantize_model` with method `"direct"` gives after calibration on the same data.

    Args:
        model: Keras model with calibrated quantizers; it is left as it was.
        observers: Statistics of what reaches each of them, by name
            (`statistics.collect`).
        bits: Integers in 1..8. Numbers of bits to measure at.
        measure: Function of the model, as a function of one batch.

    Returns:
        Dictionary from bits to what `measure` gave.
    """
    layers = quantizer_layers(model)
    grids = {layer.name: _Grid(observers[layer.name].maximum.size) for layer in layers}

    def hook(layer: Quantizer, inputs: Any) -> Any:
        return ops.cast(grids[layer.name].stored(inputs), layer.compute_dtype)

    results = {}
    with hooks.hooked(layers, hook):
        run = compiled(lambda x: model(x, training=False))
        for count in bits:
            for layer in layers:
                grids[layer.name].assign(layer, observers[layer.name], count)
            results[count] = measure(run)
    return results
