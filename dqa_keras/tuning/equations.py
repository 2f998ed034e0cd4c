"""Layers as linear equations: what they read at some places, and what they give.

A layer of G groups gives M outputs of a group out of D inputs; a depthwise convolution
has as many groups as channels.
"""

from typing import Any

import numpy as np
from keras import layers as keras_layers
from keras import ops
from numpy.typing import NDArray


def is_solvable(layer: Any) -> bool:
    """Whether this module knows the equations of a layer of this kind."""
    if isinstance(layer, keras_layers.Dense):
        return True
    kinds = (keras_layers.Conv2D, keras_layers.DepthwiseConv2D)
    return isinstance(layer, kinds) and layer.data_format == "channels_last"


def _groups(layer: Any) -> int:
    if isinstance(layer, keras_layers.DepthwiseConv2D):
        return layer.kernel.shape[2]
    return getattr(layer, "groups", 1)


def at_some(
    layer: Any,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    count: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a layer reads and gives at some places of each image.

    Args:
        layer: Keras layer that `is_solvable`.
        x: Float32 array (N, ..., C). Its inputs.
        y: Float32 array (N, ..., M). Its outputs.
        count: Integer. Places of each image; all if there are fewer.
        random: Generator that draws the places.

    Returns:
        Float32 arrays (N, P, height, width, C) and (N, P, M) for P places.
    """
    if isinstance(layer, keras_layers.Dense):
        x, y = (a.reshape(len(a), -1, 1, 1, a.shape[-1]) for a in (x, y))
        places = _drawn(x.shape[1], count, random)
        return x[:, places], y[:, places, 0, 0]
    height, width = y.shape[1:3]
    at = np.divmod(_drawn(height * width, count, random), width)
    x = patches(
        x,
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
        layer.padding == "same",
        at,
    )
    return x, y[:, at[0], at[1]]


def _drawn(places: int, count: int, random: np.random.Generator) -> NDArray[np.intp]:
    if count >= places:
        return np.arange(places)
    return np.sort(random.choice(places, count, replace=False))


def rows(layer: Any, a: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inputs (N, P, height, width, C) or outputs (N, P, M) by group: (G, N P, D)."""
    count = _groups(layer)
    split = a.reshape(a.shape[0] * a.shape[1], -1, count, a.shape[-1] // count)
    return np.moveaxis(split, 2, 0).reshape(count, len(split), -1)


def grouped(layer: Any, kernel: Any) -> NDArray[np.float64]:
    """A kernel as (G, D, M), inputs in the order of `rows`."""
    count = _groups(layer)
    kernel = ops.convert_to_numpy(kernel).astype(np.float64)
    if isinstance(layer, keras_layers.DepthwiseConv2D):
        return np.moveaxis(kernel, 2, 0).reshape(count, -1, kernel.shape[-1])
    split = kernel.reshape(-1, count, kernel.shape[-1] // count)
    return np.moveaxis(split, 1, 0)


def ungrouped(layer: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `grouped`."""
    shape = tuple(layer.kernel.shape)
    if isinstance(layer, keras_layers.DepthwiseConv2D):
        moved = weights.reshape(shape[2], *shape[:2], shape[3])
        return np.moveaxis(moved, 0, 2)
    return np.moveaxis(weights, 0, 1).reshape(shape)


def patches(
    x: NDArray[np.float32],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    same: bool,
    at: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> NDArray[np.float32]:
    """What a two-dimensional convolution reads at some of its outputs.

    Args:
        x: Float32 array (N, H, W, C).
        kernel: Height and width.
        strides: Vertical and horizontal.
        dilation: Vertical and horizontal.
        same: Boolean. Whether the padding is `"same"`; otherwise there is none.
        at: Rows and columns of P outputs, integers (P,) each.

    Returns:
        Float32 array (N, P, height, width, C).
    """
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if same:
        pads = []
        for size, span, stride in zip(x.shape[1:3], spans, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (
        place[:, None] * stride + np.arange(k) * step
        for place, stride, k, step in zip(at, strides, kernel, dilation, strict=True)
    )
    return x[:, rows[:, :, None], columns[:, None, :]]
