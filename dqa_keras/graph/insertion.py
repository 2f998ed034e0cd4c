"""Inserts quantizers into a finished model.

>>> import keras
>>> import dqa_keras as dqa
>>> model = keras.Sequential([
...     keras.Input((16, 16, 3)),
...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
...     keras.layers.GlobalAveragePooling2D(),
...     keras.layers.Dense(10, activation="softmax", name="head"),
... ])
>>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
>>> [layer.name for layer in quantized.layers if isinstance(layer, dqa.layers.DQA)]
['conv_dqa']
>>> [skip.name for skip in dqa.skipped(quantized)]
['head']
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers as keras_layers

from dqa_keras.config import DQAConfig
from dqa_keras.graph.blocks import expanded
from dqa_keras.graph.calls import has_graph
from dqa_keras.graph.copies import (
    build_activation,
    copied_argument,
    copied_operation,
    copy_state,
)
from dqa_keras.graph.layer_kinds import Kind, hides_layers, kind
from dqa_keras.graph.linear_outputs import stored_linear
from dqa_keras.layers import Quantizer, make_quantizer, quantizer_layers


class Skipped(NamedTuple):
    """A layer or op that got no quantizer, and why."""

    name: str
    reason: str


def _unknown(operation: Any) -> str:
    """The reason why a computation that nothing is known of gets no quantizer."""
    return (
        f"what {type(operation).__name__} computes is not known to be an activation: "
        "add dqa_keras.layers.DQA after it by hand"
    )


_HIDDEN = (
    "its inner layers are out of sight: add dqa_keras.layers.DQA inside it by hand"
)


_NORMALIZATIONS = (keras_layers.BatchNormalization, keras_layers.GroupNormalization)


def _check_channels_last(operation: Any) -> None:
    """Raises ValueError if a layer or op takes its channels from another axis.

    So do layers inside it, also where nothing else is known of them.
    """
    is_layer = isinstance(operation, keras_layers.Layer)
    for part in operation._flatten_layers() if is_layer else [operation]:
        first = None
        if isinstance(part, _NORMALIZATIONS):
            spec = part.input_spec  # None: not built
            if spec and part.axis not in (-1, spec.ndim - 1):
                first = f"axis={part.axis}"
        elif getattr(part, "data_format", None) == "channels_first":
            moves = isinstance(part, keras_layers.Flatten)
            first = None if moves else "data_format='channels_first'"
        if first:
            raise ValueError(
                "quantize_model needs channels on the last axis. Received: layer "
                f"{part.name!r} with {first}. Build the same model with "
                "keras.config.set_image_data_format('channels_last') and images "
                "(N, H, W, C), and give it this model's weights with set_weights: "
                "kernels have the same shape either way."
            )


class _Selection:
    """Which layer gets which config, by name or regular expression."""

    def __init__(
        self,
        config: DQAConfig,
        filters: Sequence[str] | str | None,
        overrides: Mapping[str, DQAConfig | None],
    ) -> None:
        if isinstance(filters, str):
            filters = [filters]
        for value in (config, *overrides.values()):
            if not isinstance(value, DQAConfig | None) or config is None:
                raise ValueError(
                    "config must be a DQAConfig; an override may also be None. "
                    f"Received: {value!r}"
                )
        self._config = config
        self._filters = filters
        self._overrides = overrides
        self._unmatched = {*(filters or ()), *overrides}

    def _matches(self, pattern: str, name: str) -> bool:
        try:
            matches = pattern == name or re.fullmatch(pattern, name)
        except re.error:  # a name, then, with characters special to patterns
            return False
        if not matches:
            return False
        self._unmatched.discard(pattern)
        return True

    def linear(self, model: keras.Model) -> frozenset[str]:
        """Names of a model's linear layers that are to be quantized."""
        return stored_linear(model) if self._config.quantize_linear else frozenset()

    def choose(
        self, operation: Any, arguments: Sequence[Any], linear: bool
    ) -> DQAConfig | Skipped | None:
        """A config, a reason to skip, or None where there is nothing to quantize."""
        name = operation.name
        its_kind = kind(operation, arguments)
        if its_kind is Kind.HIDDEN:
            return Skipped(name, _HIDDEN)
        if its_kind is Kind.UNKNOWN:
            return Skipped(name, _unknown(operation))
        merge = its_kind is Kind.MERGE
        if not merge and not linear and its_kind is not Kind.ACTIVATION:
            return None
        selected = [p for p in self._filters or () if self._matches(p, name)]
        override = [p for p in self._overrides if self._matches(p, name)]
        if self._filters is not None and not selected:
            return Skipped(name, "no filter matches it")
        if override:
            chosen = self._overrides[override[0]]
            return chosen or Skipped(name, f"override {override[0]!r} is None")
        if merge and not linear and not self._config.quantize_merges:
            return Skipped(name, "a merge, and quantize_merges is off")
        return self._config

    def check_all_matched(self) -> None:
        if self._unmatched:
            raise ValueError(
                "every filter and override must match the name of an activation or "
                "merge layer, or with quantize_linear of a linear layer whose output "
                f"is kept. Received: {sorted(self._unmatched)[0]!r}, which matches "
                "none. `model.summary()` shows the names."
            )


class _Converter:
    """Rebuilds one model after another, nested ones first."""

    def __init__(self, selection: _Selection, used_names: set[str]) -> None:
        self._selection = selection
        self.skipped: list[Skipped] = []
        self.held_back: list[Skipped] = []
        self._names = used_names
        # Of a converted nested model: the config of the quantizer after each output.
        self._pending: dict[int, list[DQAConfig | None]] = {}

    def convert(self, model: keras.Model, prefix: str = "") -> keras.Model:
        """A model with quantizers everywhere but after its own outputs."""
        source = model
        if isinstance(model, keras.Sequential):
            if not model.built:
                raise ValueError(
                    f"model {model.name!r} must be built first: call "
                    "model.build(input_shape) or start it with keras.Input"
                )
            source = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        pairs: list[tuple[Any, Any]] = []
        linear = self._selection.linear(source)

        def clone(operation: Any) -> Any:
            if not has_graph(operation) and hides_layers(operation):
                operation = expanded(operation) or operation
            if has_graph(operation):
                return self.convert(operation, f"{prefix}{operation.name}_")
            _check_channels_last(operation)
            try:
                copy = copied_operation(operation)
            except NotImplementedError as error:
                raise ValueError(
                    f"layer {operation.name!r} cannot be copied: "
                    f"{type(operation).__name__} must override get_config() and give "
                    "every argument of its __init__()."
                ) from error
            if isinstance(operation, keras.Layer):
                pairs.append((operation, copy))
            return copy

        def quantize(tensor: Any, config: DQAConfig | None, stem: str) -> Any:
            if config is None:
                return tensor
            # Not the global policy's dtype: what follows must see the same type.
            return make_quantizer(config, self._name(stem, config), tensor.dtype)(
                tensor
            )

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = operation(*args, **kwargs)
            build_activation(operation, outputs)
            flat = keras.tree.flatten(outputs)
            is_linear = operation.name in linear
            configs = self._configs(operation, (*args, kwargs), flat, is_linear)
            quantized = [
                quantize(tensor, config, prefix + operation.name)
                for tensor, config in zip(flat, configs, strict=True)
            ]
            return keras.tree.pack_sequence_as(outputs, quantized)

        rebuilt = keras.models.clone_model(
            source, clone_function=clone, call_function=call
        )
        for original, copy in pairs:
            copy_state(original, copy)
        return self._without_output_quantizers(rebuilt, model)

    def _configs(
        self,
        operation: Any,
        arguments: Sequence[Any],
        outputs: list[Any],
        linear: bool,
    ) -> list[DQAConfig | None]:
        """The config of the quantizer after each output of a layer."""
        if id(operation) in self._pending:
            return self._pending[id(operation)]
        choice = self._selection.choose(operation, arguments, linear)
        dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in outputs]
        if isinstance(choice, DQAConfig):
            shapes = [tuple(tensor.shape) for tensor in outputs]
            dtype = dtypes[0]
            fits = len(outputs) == 1 and len(shapes[0]) > 1 and shapes[0][-1]
            if fits and "float" in dtype:
                return [choice]
            reason = f"output {dtype} {shapes}: not one tensor of floats with channels"
            choice = Skipped(operation.name, reason)
        if choice is not None and any("float" in dtype for dtype in dtypes):
            self.skipped.append(choice)
        return [None] * len(outputs)

    def _name(self, stem: str, config: DQAConfig) -> str:
        name = stem = f"{stem}_{config.method}"
        number = 1
        while name in self._names:
            name = f"{stem}_{number}"
            number += 1
        self._names.add(name)
        return name

    def _without_output_quantizers(
        self, rebuilt: keras.Model, original: keras.Model
    ) -> keras.Model:
        """Removes the quantizers after the outputs; an outer model may add them."""
        pending: list[DQAConfig | None] = []
        outputs = []
        for tensor in rebuilt.outputs:
            producer = tensor._keras_history.operation
            if isinstance(producer, Quantizer):
                pending.append(producer.config)
                outputs.append(producer.input)
            else:
                pending.append(None)
                outputs.append(tensor)
        model = keras.Model(
            rebuilt.input,
            keras.tree.pack_sequence_as(rebuilt.output, outputs),
            name=original.name,
        )
        if original.compiled:
            arguments = original._compile_config.config
            model.compile(**keras.tree.map_structure(copied_argument, arguments))
        self._pending[id(model)] = pending
        self.held_back = [
            Skipped(tensor._keras_history.operation.name, "an output of the model")
            for tensor, config in zip(outputs, pending, strict=True)
            if config is not None
        ]
        return model


def quantize_model(
    model: keras.Model,
    config: DQAConfig,
    *,
    filters: Sequence[str] | str | None = None,
    overrides: Mapping[str, DQAConfig | None] | None = None,
) -> keras.Model:
    """A copy of a model with a quantizer after every nonlinear activation.

    Quantizers go after activation layers, layers with an `activation=` argument and
    `keras.ops` activations, also inside `TimeDistributed`, nested models and custom
    layers that only call Keras layers and ops (those become nested models). With
    `config.quantize_merges` they also go after merges, as layers or operators
    (`x + y`); with `config.quantize_linear` also after linear layers whose output must
    be stored, such as linear bottlenecks. Outputs of the model get none. Every other
    operation that computes floats is listed by `dqa_keras.skipped`, but for linear
    ones and those that only move or select values. The new model owns copies of the
    weights: the original is never changed. It is compiled as the original was.

    Args:
        model: Functional or Sequential Keras model, built. Nested and shared models
            are converted inside.
        config: `DQAConfig`.
        filters: Names or regular expressions (matched in full) of layers, or a single
            one. If given, only these get a quantizer. Defaults to `None`.
        overrides: For names or regular expressions of layers, another `DQAConfig`, or
            `None` to leave them alone. The first match counts. Defaults to `None`.

    Returns:
        A Functional Keras model. `dqa_keras.skipped` lists what got no quantizer. If
        nothing got one, a `UserWarning` says why.

    Raises:
        ValueError: If the model is subclassed, not built, already quantized or has its
            channels first, or a filter or override matches nothing.

    Example:
    >>> import keras
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(8, activation="relu", name="first"),
    ...     keras.layers.Dense(8, activation="relu", name="second"),
    ...     keras.layers.Dense(1, name="head"),
    ... ])
    >>> config = dqa.DQAConfig(bits=3)
    >>> quantized = dqa.quantize_model(
    ...     model, config, overrides={"first": config.replace(bits=6)})
    >>> [layer.bits for layer in quantized.layers if isinstance(layer, dqa.layers.DQA)]
    [6, 3]
    """
    if not isinstance(model, keras.Model) or not has_graph(model):
        raise ValueError(
            "quantize_model needs a Functional or Sequential model: the layers of a "
            f"subclassed one are out of sight. Received: {type(model).__name__}. Add "
            "dqa_keras.layers.DQA(bits=..., extra_bits=...) behind the activations in "
            "its call() and use dqa_keras.calibrate(model, data)."
        )
    present = quantizer_layers(model)
    if present:
        raise ValueError(
            "quantize_model needs a model without quantizers. Received: "
            f"{model.name!r}, which holds {present[0].name!r}"
        )
    selection = _Selection(config, filters, overrides or {})
    converter = _Converter(selection, {layer.name for layer in model._flatten_layers()})
    quantized = converter.convert(model)
    selection.check_all_matched()
    reasons = tuple(dict.fromkeys(converter.skipped + converter.held_back))
    quantized._dqa_skipped = reasons
    if not quantizer_layers(quantized):
        warnings.warn(_nothing_quantized(model, reasons), stacklevel=2)
    return quantized


def _nothing_quantized(model: keras.Model, reasons: Sequence[Skipped]) -> str:
    text = "; ".join(f"{name}: {reason}" for name, reason in reasons)
    return (
        f"no quantizer was put into model {model.name!r}. "
        + (f"Skipped: {text}" if text else "All its activations are linear")
        + ". Add dqa_keras.layers.DQA by hand where activations are to be quantized."
    )


def skipped(model: keras.Model) -> tuple[Skipped, ...]:
    """Computations that `quantize_model` left alone, with the reason.

    Not listed are linear layers and ops (convolutions, products with constants, means),
    which get a quantizer with `quantize_linear` only; operations that move or select
    values (reshapes, slices, max pools); and those that give integers or booleans.

    Only the model that `quantize_model` returned has the list. It is empty for a model
    that was loaded from a file.
    """
    return getattr(model, "_dqa_skipped", ())
