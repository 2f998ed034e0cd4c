"""Runs TensorFlow's converter on a Keras model.

Each quantizer becomes a few element-wise ops with constant operands, in the order that
`dqa_keras.quantizers` prescribes, except that codes are clipped before they are
rounded. The bounds are whole numbers, so the codes are the same, and where codes are
unsigned the lower bound becomes a fused ReLU.
"""

import functools
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np

from dqa_keras.export.litert import open_sizes, refusals, verification
from dqa_keras.graph import hooks
from dqa_keras.layers import NoisyQuant, Quantizer, quantizer_layers

Weights = Literal["float32", "float16", "int8"]

# Element-wise kernels run along the last axes that both operands share, and a run of
# few channels is mostly overhead: up to this many, constants are repeated along the
# width. With more, the file would grow for nothing. `benchmarks/cost.py` measures.
_FEW_CHANNELS = 64

# Weights become constants of the graph that goes to the converter: hundreds of
# variables take longer to save and load than the conversion itself. But a constant is
# copied some thirty times on its way, so one of this many values stays a variable.
_MANY_WEIGHTS = 2**18

# Stands for an open size where one is needed to try something out.
TRIAL_SIZE = 64


def model_inputs(model: keras.Model) -> Any:
    """The symbolic inputs, in the structure that the model is called with.

    Raises:
        ValueError: If the model is subclassed and declares none.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"model {model.name!r} has no declared inputs: wrap it in "
            "keras.Model(inputs, model(inputs)) first."
        )
    return _alone(getattr(model, "_inputs_struct", model.inputs))


def input_shapes(
    model: keras.Model, input_shape: Any = None
) -> list[tuple[int | None, ...]]:
    """Shapes of the inputs without the batch axis, `None` where any size will do.

    Args:
        model: Keras model with declared inputs.
        input_shape: Tuple of integers that fixes what the model leaves open; a list of
            such tuples for several inputs. Defaults to `None`.

    Raises:
        ValueError: If it does not fit the inputs.
    """
    tensors = keras.tree.flatten(model_inputs(model))
    declared = [tuple(tensor.shape[1:]) for tensor in tensors]
    if input_shape is None:
        return declared
    one_each = list(input_shape) if isinstance(input_shape, list) else [input_shape]
    fits = len(one_each) == len(declared) and all(
        isinstance(shape, tuple)
        and len(shape) == len(wanted)
        and all(
            isinstance(size, (int, np.integer)) and size > 0 and want in (None, size)
            for size, want in zip(shape, wanted, strict=True)
        )
        for shape, wanted in zip(one_each, declared, strict=True)
    )
    if not fits:
        names = ", ".join(
            f"{tensor.name!r} of shape {shape}"
            for tensor, shape in zip(tensors, declared, strict=True)
        )
        raise ValueError(
            "input_shape must be the sizes of an image, without the batch axis, or a "
            f"list of such tuples for several inputs; the model has {names}. "
            f"Received: {input_shape!r}"
        )
    return one_each


def open_size(model: keras.Model, shapes: list[tuple[int | None, ...]]) -> str | None:
    """The first input without a fixed size, and how to fix it; `None` if there is none.

    Args:
        model: Keras model with declared inputs.
        shapes: What `input_shapes` returned.
    """
    names = [tensor.name for tensor in keras.tree.flatten(model_inputs(model))]
    for name, shape in zip(names, shapes, strict=True):
        if None in shape:
            return (
                f"input {name!r} of shape {shape}. Fix it for this file: "
                "input_shape=(height, width, channels)"
            )
    return None


def input_names(model: keras.Model) -> list[str]:
    """Names of the inputs in the signature: keys of a dict, else the tensors' names."""
    return _names(model_inputs(model), lambda tensor: tensor.name)


def output_names(model: keras.Model) -> list[str]:
    """Names of the outputs in the signature.

    The keys of a dict, else the names of the layers that make them; `output_0` for one
    output in no structure.
    """
    outputs = _alone(getattr(model, "_outputs_struct", model.outputs))
    if isinstance(outputs, keras.KerasTensor):
        return ["output_0"]
    return _names(outputs, lambda tensor: tensor._keras_history.operation.name)


def _alone(structure: Any) -> Any:
    """A tensor instead of a list of one."""
    if isinstance(structure, (list, tuple)) and len(structure) == 1:
        return structure[0]
    return structure


def _names(structure: Any, own: Callable[[Any], str]) -> list[str]:
    """A name for each leaf, told apart by numbers where two are alike."""
    names: list[str] = []
    for path, tensor in keras.tree.flatten_with_path(structure):
        is_keyed = any(isinstance(step, str) for step in path)
        stem = "_".join(map(str, path)) if is_keyed else own(tensor)
        name, number = stem, 0
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names


def _constant_quantizer(layer: Quantizer, scope: str) -> Any:
    """The layer's arithmetic with its state as constants, for any input."""
    import tensorflow as tf

    table = layer.table()
    q_min, q_max = (np.asarray(bound) for bound in layer.code_range())
    noise = np.asarray(layer.noise) if isinstance(layer, NoisyQuant) else None

    def quantize(inputs: Any) -> Any:
        x = tf.cast(inputs, tf.float32)

        def constant(values: np.ndarray) -> np.ndarray:
            if np.all(values == values[0]):
                return values[:1]
            width = x.shape[-2] if x.shape.rank > 2 else None
            if width is None or values.size > _FEW_CHANNELS:
                return values
            return np.tile(values, (width, 1))

        if noise is not None:
            x = x + constant(noise)
        with tf.name_scope(scope):
            v = x * constant(table.inverse_scale)
            v = tf.maximum(v, constant(q_min)) if table.signed else tf.nn.relu(v)
            y = tf.round(tf.minimum(v, constant(q_max))) * constant(table.scale)
        if noise is not None:
            y = y - constant(noise)
        return tf.cast(y, layer.compute_dtype)

    return quantize


def input_name(index: int) -> str:
    """Name of an input's tensor: TensorFlow refuses some names that Keras allows."""
    return f"quantized_model_input_{index}"


def _must_be_fixed(culprits: list[str], left_open: str) -> ValueError:
    who = ", ".join(culprits) or "a layer of the model"
    return ValueError(
        f"{who} can be converted for inputs of a fixed size only. Received: {left_open}"
    )


@contextmanager
def _without_advice() -> Iterator[None]:
    """TensorFlow keeps to itself what it does with a folder that is gone at once."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def convert(model: keras.Model, weights: Weights, input_shape: Any = None) -> bytes:
    """A model, quantized or not, as the converter writes it: no metadata, no checks.

    Args:
        model: Keras model.
        weights: How to store them.
        input_shape: As in `input_shapes`. Defaults to `None`.

    Raises:
        OSError: If the folder of temporary files is full.
        ValueError: If the converter refuses the model, with the op and its layer, or
            if it must know a size that the model leaves open.
    """
    import tensorflow as tf

    layers = quantizer_layers(model)
    quantize = {
        layer.name: _constant_quantizer(layer, verification.scope(index))
        for index, layer in enumerate(layers)
    }
    inputs = model_inputs(model)
    shapes = input_shapes(model, input_shape)
    left_open = open_size(model, shapes)
    signature = [
        tf.TensorSpec((1, *shape), tensor.dtype, name=input_name(index))
        for index, (tensor, shape) in enumerate(
            zip(keras.tree.flatten(inputs), shapes, strict=True)
        )
    ]

    weights_of: list[tuple[Any, Any]] = []
    large = []
    for variable in model.variables:
        is_float = keras.backend.is_float_dtype(variable.dtype)
        values = np.asarray(variable, np.float32 if is_float else None)
        if values.size < _MANY_WEIGHTS:
            weights_of.append((variable, functools.partial(tf.constant, values)))
        else:
            large.append(tf.Variable(values, trainable=False))
            weights_of.append((variable, large[-1].read_value))

    def serve(*arrays: Any) -> Any:
        x = keras.tree.pack_sequence_as(inputs, list(arrays))
        with (
            keras.StatelessScope() as scope,
            hooks.hooked(layers, lambda layer, x: quantize[layer.name](x)),
        ):
            for variable, read in weights_of:
                scope.add_update((variable, read()))
            outputs = keras.tree.flatten(model(x, training=False))
        return {f"output_{index:04}": tensor for index, tensor in enumerate(outputs)}

    graph = tf.function(serve, input_signature=signature, autograph=False)
    if left_open is None:
        concrete = graph.get_concrete_function()
    else:
        reason = None
        with open_sizes.traceable(model) as failed:
            try:
                concrete = graph.get_concrete_function()
            except Exception as error:  # whatever a layer raises that must know it
                reason = error
        if reason is not None:
            _check_any_size(model, weights, shapes)
            raise _must_be_fixed(failed[:1], left_open) from reason
    module = tf.Module()
    module.large = large  # saves what is reachable
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        try:
            tf.saved_model.save(module, folder, concrete)
        except tf.errors.OpError as error:  # how TensorFlow says that a disk is full
            raise OSError(
                f"cannot write the model to {folder} for conversion: {error.message}"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if weights == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            with refusals.quiet():
                return converter.convert()
        except Exception as error:  # ConverterError, which is not public, or any other
            names = [layer.name for layer in model._flatten_layers()]
            refusal = str(error)
    if left_open is not None:
        _check_any_size(model, weights, shapes)
        raise _must_be_fixed(refusals.culprits(refusal, names), left_open)
    raise refusals.Refused(refusals.explain(refusal, names))


def _check_any_size(
    model: keras.Model, weights: Weights, shapes: list[tuple[int | None, ...]]
) -> None:
    """Raises Refused if the converter would refuse a model of fixed sizes too."""
    fixed = [tuple(size or TRIAL_SIZE for size in shape) for shape in shapes]
    try:
        convert(model, weights, fixed)
    except refusals.Refused:
        raise
    except Exception:  # what a layer says that has no use for this size
        return
