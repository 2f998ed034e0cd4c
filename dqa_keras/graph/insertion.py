"""Puts quantizers into a finished model.

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

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers as keras_layers

from dqa_keras.config import DQAConfig
from dqa_keras.graph.layer_kinds import is_activation
from dqa_keras.graph.linear_outputs import stored_linear
from dqa_keras.layers import Quantizer, make_quantizer, quantizer_layers

_MERGE_LAYERS = (keras_layers.Add, keras_layers.Concatenate)


class Skipped(NamedTuple):
    """A layer that got no quantizer, and why."""

    name: str
    reason: str


def _is_opaque(operation: Any) -> bool:
    """Whether a layer computes with layers of its own that a graph does not show."""
    if isinstance(operation, (keras_layers.Lambda, keras_layers.RNN)):
        return True
    return isinstance(operation, keras.Layer) and bool(
        operation._flatten_layers(include_self=False)
    )


def _is_graph(model: Any) -> bool:
    """Whether a model is Functional or Sequential, so that its layers can be seen."""
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


class _Plan:
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

    def choose(self, operation: Any, linear: bool) -> DQAConfig | Skipped | None:
        """A config, a reason to skip, or None where there is nothing to quantize."""
        name = operation.name
        merge = isinstance(operation, _MERGE_LAYERS)
        if _is_opaque(operation):
            reason = (
                "its inner layers are out of sight: add dqa_keras.layers.DQA "
                "inside it by hand"
            )
            return Skipped(name, reason)
        if not merge and not linear and not is_activation(operation):
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

    def __init__(self, plan: _Plan, taken: set[str]) -> None:
        self._plan = plan
        self.skipped: list[Skipped] = []
        self.held_back: list[Skipped] = []
        self._names = taken
        # Of a converted nested model: which outputs want a quantizer behind them.
        self._pending: dict[int, list[DQAConfig | None]] = {}

    def convert(self, model: keras.Model, prefix: str = "") -> keras.Model:
        """A model with quantizers everywhere but behind its own outputs."""
        source = model
        if isinstance(model, keras.Sequential):
            if not model.built:
                raise ValueError(
                    f"model {model.name!r} must be built first: call "
                    "model.build(input_shape) or start it with keras.Input"
                )
            source = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        pairs: list[tuple[Any, Any]] = []
        linear = self._plan.linear(source)

        def clone(operation: Any) -> Any:
            if _is_graph(operation):
                return self.convert(operation, f"{prefix}{operation.name}_")
            copy = _copied_operation(operation)
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
            flat = keras.tree.flatten(outputs)
            configs = self._configs(operation, flat, operation.name in linear)
            quantized = [
                quantize(tensor, config, prefix + operation.name)
                for tensor, config in zip(flat, configs, strict=True)
            ]
            return keras.tree.pack_sequence_as(outputs, quantized)

        rebuilt = keras.models.clone_model(
            source, clone_function=clone, call_function=call
        )
        for original, copy in pairs:
            _copy_state(original, copy)
        return self._without_output_quantizers(rebuilt, model)

    def _configs(
        self, operation: Any, outputs: list[Any], linear: bool
    ) -> list[DQAConfig | None]:
        """For each output of a layer, what to quantize it to."""
        if id(operation) in self._pending:
            return self._pending[id(operation)]
        choice = self._plan.choose(operation, linear)
        if isinstance(choice, DQAConfig):
            shapes = [tuple(tensor.shape) for tensor in outputs]
            dtype = keras.backend.standardize_dtype(outputs[0].dtype)
            fits = len(outputs) == 1 and len(shapes[0]) > 1 and shapes[0][-1]
            if fits and "float" in dtype:
                return [choice]
            reason = f"output {dtype} {shapes}: not one tensor of floats with channels"
            choice = Skipped(operation.name, reason)
        if choice is not None:
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
        """Takes the quantizers off the outputs; an outer model may put them back."""
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
            model.compile(**keras.tree.map_structure(_copied, arguments))
        self._pending[id(model)] = pending
        self.held_back = [
            Skipped(tensor._keras_history.operation.name, "an output of the model")
            for tensor, config in zip(outputs, pending, strict=True)
            if config is not None
        ]
        return model


def _copied_operation(operation: Any) -> Any:
    """A copy without weights; functions are handed over instead of serialised.

    Keras cannot serialise a user's function that is not registered, nor a lambda.
    """
    config = operation.get_config()
    functions = {
        name: vars(operation)[name]  # a recurrent layer's are its cell's properties
        for name in ("activation", "function")
        if name in config and inspect.isfunction(vars(operation).get(name))
    }
    for name in functions:
        config[name] = keras.saving.serialize_keras_object(keras.activations.linear)
    copy = type(operation).from_config(config)
    for name, function in functions.items():
        setattr(copy, name, function)
    return copy


def _copied(argument: Any) -> Any:
    """An optimizer, loss or metric of its own; functions and names as they are."""
    if hasattr(argument, "get_config"):
        return type(argument).from_config(argument.get_config())
    return argument


def _copy_state(original: keras.Layer, copy: keras.Layer) -> None:
    """Copies weights and whatever else a layer saves (`Normalization` does)."""
    for source, target in zip(
        original._flatten_layers(), copy._flatten_layers(), strict=True
    ):
        state: dict[str, Any] = {}
        source.save_own_variables(state)
        if state:
            target.load_own_variables(
                {name: keras.ops.convert_to_numpy(v) for name, v in state.items()}
            )


def quantize_model(
    model: keras.Model,
    config: DQAConfig,
    *,
    filters: Sequence[str] | str | None = None,
    overrides: Mapping[str, DQAConfig | None] | None = None,
) -> keras.Model:
    """A copy of a model with a quantizer behind every nonlinear activation.

    The quantizer goes behind activation layers, layers with an `activation=` argument
    and `keras.ops` activations; with `config.quantize_merges` also behind Add and
    Concatenate; with `config.quantize_linear` also behind linear layers whose output
    is kept, such as linear bottlenecks; never behind an output of the model. The new
    model owns copies of the weights: the original is never changed. It is compiled as
    the original was.

    Args:
        model: Functional or Sequential Keras model, built. Nested and shared models
            are converted inside.
        config: `DQAConfig`.
        filters: Names or regular expressions (matched in full) of layers, or a single
            one. If given, only these get a quantizer. Defaults to `None`.
        overrides: For names or regular expressions of layers, another `DQAConfig`, or
            `None` to leave them alone. The first match counts. Defaults to `None`.

    Returns:
        A Functional Keras model. `dqa_keras.skipped` lists what got no quantizer.

    Raises:
        ValueError: If the model is subclassed, not built or already quantized, or a
            filter or override matches nothing.

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
    if not isinstance(model, keras.Model) or not _is_graph(model):
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
    plan = _Plan(config, filters, overrides or {})
    converter = _Converter(plan, {layer.name for layer in model._flatten_layers()})
    quantized = converter.convert(model)
    plan.check_all_matched()
    quantized._dqa_skipped = tuple(
        dict.fromkeys(converter.skipped + converter.held_back)
    )
    return quantized


def skipped(model: keras.Model) -> tuple[Skipped, ...]:
    """Activations and merges that `quantize_model` left alone, with the reason.

    Known of the model that `quantize_model` returned, not of one loaded from a file.
    """
    return getattr(model, "_dqa_skipped", ())
