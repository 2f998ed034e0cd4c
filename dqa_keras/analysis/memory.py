"""The memory that activations take while a network runs, step by step.

A step is a layer that makes a new tensor. A layer that changes values in place (batch
norm, an activation, a quantizer, a reshape) belongs to the step before it, as every
converter fuses it. A tensor is alive from the step that makes it to the last one that
reads it; inputs are alive from the start, outputs to the end. Weights and a runtime's
own buffers are not counted. No schedule of whole tensors can need less.

>>> import keras
>>> from dqa_keras.analysis import memory
>>> model = keras.Sequential([
...     keras.Input((8, 8, 1)),
...     keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="wide"),
...     keras.layers.Conv2D(2, 3, padding="same", name="narrow"),
... ])
>>> live = memory.timeline(model)
>>> live.steps, live.bytes["int8"].tolist()
(('wide', 'narrow'), [320.0, 384.0])
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from numpy.typing import NDArray

from dqa_keras.analysis.storage import Storage, expected_bits
from dqa_keras.graph import calls
from dqa_keras.layers import Quantizer, quantizer_layers

FORMS = ("float32", "int8", "stored")

_IN_PLACE = (
    Quantizer,
    keras_layers.Activation,
    keras_layers.BatchNormalization,
    keras_layers.Dropout,
    keras_layers.ELU,
    keras_layers.Flatten,
    keras_layers.Identity,
    keras_layers.LeakyReLU,
    keras_layers.Normalization,
    keras_layers.PReLU,
    keras_layers.ReLU,
    keras_layers.Rescaling,
    keras_layers.Reshape,
)


# These move values or choose among them: codes stay codes.
_MOVING = (
    keras_layers.Concatenate,
    keras_layers.Cropping1D,
    keras_layers.Cropping2D,
    keras_layers.GlobalMaxPooling1D,
    keras_layers.GlobalMaxPooling2D,
    keras_layers.MaxPooling1D,
    keras_layers.MaxPooling2D,
    keras_layers.Permute,
    keras_layers.ZeroPadding1D,
    keras_layers.ZeroPadding2D,
)


def _moves(operation: Any) -> bool:
    if isinstance(operation, keras_layers.UpSampling2D):
        return operation.interpolation == "nearest"
    return isinstance(operation, _MOVING)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Bytes of live activations of one input at each step.

    Args:
        steps: Tuple of strings. Names of the layers, in the order that they run.
        bytes: Dictionary from form to float64 array (steps,). `"float32"`: 4 bytes a
            value. `"int8"`: 1 byte. `"stored"`: quantized activations at their stored
            bits, also after layers that only move them; everything else at 1 byte.
    """

    steps: tuple[str, ...]
    bytes: Mapping[str, NDArray[np.float64]]

    def peak(self, form: str) -> tuple[int, float]:
        """The step at which a form needs most, and the bytes there."""
        step = int(np.argmax(self.bytes[form]))
        return step, float(self.bytes[form][step])

    @property
    def unit(self) -> tuple[int, str]:
        """Bytes a unit, and its name, that suit the figures: KiB or MiB."""
        large = self.peak("float32")[1] >= 2**20
        return (2**20, "MiB") if large else (2**10, "KiB")


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation of a graph.

    Args:
        name: String.
        inputs: Keys of the tensors that it reads; constants are left out.
        outputs: Keys of the tensors that it makes.
        in_place: Boolean. Whether it can write over its only input.
        moves: Boolean. Whether it only moves values or chooses among them.
    """

    name: str
    inputs: Sequence[Hashable]
    outputs: Sequence[Hashable]
    in_place: bool
    moves: bool


def schedule(
    steps: Sequence[Step],
    values: Mapping[Any, int],
    stored_bits: Mapping[Any, float],
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
) -> Timeline:
    """The timeline of any graph.

    Args:
        steps: The operations, in the order that they run.
        values: Number of values of each tensor.
        stored_bits: Stored bits a value of the tensors that are quantized.
        inputs: Keys of the graph's inputs.
        outputs: Keys of its outputs.

    Returns:
        A `Timeline`.
    """
    readers: dict[Hashable, int] = {}
    for step in steps:
        for key in set(step.inputs):
            readers[key] = readers.get(key, 0) + 1
    place: dict[Hashable, Hashable] = {key: key for key in inputs}
    bits = {key: stored_bits.get(key, 8.0) for key in inputs}
    kept_steps = []
    for step in steps:
        source = step.inputs[0] if len(step.inputs) == 1 else None
        if step.in_place and readers.get(source) == 1 and source not in outputs:
            place[step.outputs[0]] = root = place[source]
            bits[root] = stored_bits.get(step.outputs[0], bits[root])
            continue
        kept_steps.append(step)
        kept = 8.0
        if step.moves:
            sizes = [values[key] for key in step.inputs]
            kept = float(np.average([bits[place[k]] for k in step.inputs], 0, sizes))
        for key in step.outputs:
            place[key] = key
            bits[key] = stored_bits.get(key, kept)
    kept_steps = kept_steps or list(steps[:1])
    first = {key: 0 for key in inputs}
    last = {place[key]: len(kept_steps) - 1 for key in outputs}
    numbers = {id(step): number for number, step in enumerate(kept_steps)}
    number = 0
    for step in steps:
        number = numbers.get(id(step), number)
        for key in step.inputs:
            last[place[key]] = max(last.get(place[key], 0), number)
        for key in step.outputs:
            first.setdefault(place[key], number)
            last.setdefault(place[key], number)
    live = {form: np.zeros(len(kept_steps)) for form in FORMS}
    for key, start in first.items():
        alive = slice(start, last.get(key, start) + 1)
        live["float32"][alive] += 4 * values[key]
        live["int8"][alive] += values[key]
        live["stored"][alive] += values[key] * bits[key] / 8
    return Timeline(tuple(step.name for step in kept_steps), live)


def timeline(
    model: keras.Model,
    storage: Storage | None = None,
    input_shapes: Sequence[tuple[int, ...]] | None = None,
) -> Timeline:
    """Live activations of one input at each step of a Keras model.

    Args:
        model: Functional or Sequential Keras model, with quantizers or without.
        storage: What `storage_bits` measured. By default stored bits are those that
            calibration saw.
        input_shapes: Shapes of the inputs without the batch axis. Needed where the
            model leaves sizes open. Defaults to `None`.

    Returns:
        A `Timeline`.

    Raises:
        ValueError: If the model is subclassed, or a size is not known.
    """
    if not calls.has_graph(model):
        raise ValueError(
            "a timeline needs a Functional or Sequential model: the layers of a "
            f"subclassed one are out of sight. Received: {type(model).__name__}"
        )
    shapes = input_shapes or [tuple(tensor.shape[1:]) for tensor in model.inputs]
    for tensor, shape in zip(model.inputs, shapes, strict=True):
        if None in shape:
            raise ValueError(
                f"the size of input {tensor.name!r} is open: give input_shapes. "
                f"Received: {shape}"
            )
    bits = {
        layer.name: storage.layers[layer.name].bits if storage else expected_bits(layer)
        for layer in quantizer_layers(model)
        if layer.is_calibrated
    }
    seen = calls.flatten(model, [(1, *shape) for shape in shapes])
    tensors = [x for call in seen.calls for x in call.outputs]
    return schedule(
        [
            Step(
                call.operation.name,
                _keys(call.inputs),
                _keys(call.outputs),
                in_place=isinstance(call.operation, _IN_PLACE),
                moves=_moves(call.operation),
            )
            for call in seen.calls
        ],
        {id(x): int(np.prod(x.shape)) for x in (*seen.inputs, *tensors)},
        {
            id(call.outputs[0]): bits[call.operation.name]
            for call in seen.calls
            if call.operation.name in bits
        },
        _keys(seen.inputs),
        _keys(seen.outputs),
    )


def _keys(tensors: list[Any]) -> list[Hashable]:
    return [id(tensor) for tensor in tensors]
