"""One pass over the data: what reaches each quantizer, and a few of the images.

The model runs as it is; what it computes in front of each quantizer is reduced to an
`Observer`, so memory does not grow with the data.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dqa_keras import feeding, sensitivity, tracing
from dqa_keras.layers import Quantizer, quantizer_layers
from dqa_keras.observers import Observer

# Positions of each image that enter the histograms: counting every value would take
# longer than the forward pass. Ranges and the check for NaN see every value.
_POSITIONS = 128

_GOLDEN = 0.6180339887498949


def _statistics(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
    """Samples (M, C); smallest, largest, summed values (C,); size; passes inputs on."""
    x = ops.cast(inputs, "float32")
    axes = list(range(x.ndim - 1))
    minimum, maximum = ops.min(x, axes), ops.max(x, axes)
    # A sum is finite only if all its values are; `min` and `max` may drop a NaN.
    total = ops.sum(x, axes)
    batch, *spatial, channels = ops.shape(x)
    positions: Any = 1
    for size in spatial:
        positions = positions * size
    rows = ops.reshape(x, (batch, positions, channels))
    if not isinstance(positions, int) or positions > _POSITIONS:
        # Golden-ratio steps spread evenly and never line up with rows of pixels.
        spread = np.modf(np.arange(_POSITIONS) * _GOLDEN)[0].astype(np.float32)
        index = ops.cast(spread * ops.cast(positions, "float32"), "int32")
        rows = ops.take(rows, ops.minimum(index, positions - 1), axis=1)
    samples = ops.reshape(rows, (-1, channels))
    return (samples, minimum, maximum, total, ops.size(x)), inputs


class Gathered(NamedTuple):
    """What one pass over the data gives.

    Args:
        observers: Dictionary from quantizer name to `Observer`.
        images: Integer. Images seen.
        kept: A batch of some of them, or None if none were to be kept.
    """

    observers: dict[str, Observer]
    images: int
    kept: Any


class _Reservoir:
    """A uniform sample of the images of a stream (Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._kept: list[Any] = []
        self._seen = 0

    def add(self, x: Any) -> None:
        arrays = keras.tree.map_structure(np.asarray, x)
        for row in range(len(keras.tree.flatten(arrays)[0])):
            slot = self._seen
            if self._seen >= self._size:
                slot = int(self._random.integers(self._seen + 1))
            self._seen += 1
            if slot < self._size:
                image = keras.tree.map_structure(lambda a, row=row: a[row], arrays)
                self._kept[slot : slot + 1] = [image]

    def batch(self) -> Any:
        return keras.tree.map_structure(lambda *rows: np.stack(rows), *self._kept)


def collect(
    model: keras.Model,
    data: Any,
    batch_size: int,
    verbose: int,
    keep: int,
    loss: sensitivity.Loss | None,
) -> Gathered:
    """Statistics of what reaches each quantizer, and a few images.

    Args:
        model: Keras model whose quantizers let everything pass.
        data: Inputs, as for `calibrate`.
        batch_size: Integer. Images a step when `data` is arrays.
        verbose: Integer. `0` hides the progress bar.
        keep: Integer. How many images to keep; a uniform sample of all.
        loss: Which loss the observers' `sensitivity` belongs to; `None` saves the
            backward pass.

    Returns:
        A `Gathered`.

    Raises:
        ValueError: If the data is empty or does not fit the model, or an activation
            holds NaN or infinity.
    """
    observers: dict[str, Observer] = {}
    observe = tracing.observing(model, _statistics)
    backward = sensitivity.observing(model, loss) if loss else None
    images = 0
    reservoir = _Reservoir(keep, quantizer_layers(model)[0].config.seed)
    source = feeding.observed(model, data, batch_size, verbose, "calibrate")
    for number, x in enumerate(source):
        # Some CPUs turn NaN into 0 in a convolution fused with its ReLU.
        if not all(np.all(np.isfinite(leaf)) for leaf in keras.tree.flatten(x)):
            raise ValueError(
                f"the model's inputs must be finite. Received: NaN or infinity in "
                f"batch {number}. Check the data."
            )
        images += len(keras.tree.flatten(x)[0])
        for layer, (samples, minimum, maximum, total, size) in observe(x):
            if not np.all(np.isfinite(total)):
                raise ValueError(
                    f"the activation in front of {layer.name!r} must be finite. "
                    f"Received: NaN or infinity in batch {number}. Check the data and "
                    "the weights of the layers before it."
                )
            if layer.name not in observers:
                observers[layer.name] = Observer(minimum.size)
            observers[layer.name].update(samples, minimum, maximum)
            observers[layer.name].values += int(size)
        for layer, squares in backward(x) if backward else ():
            observers[layer.name].sensitivity += squares
        if keep:
            reservoir.add(x)
    return Gathered(observers, images, reservoir.batch() if keep else None)
