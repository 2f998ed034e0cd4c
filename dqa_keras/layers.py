"""Keras layers that quantize activations.

Put one after an activation and calibrate the model: the layer then rounds its inputs to
codes of few bits. Before calibration a layer passes its input through
unchanged.

>>> import keras, numpy as np
>>> import dqa_keras as dqa
>>> model = keras.Sequential([
...     keras.Input((8, 8, 1)),
...     keras.layers.Conv2D(4, 3, activation="relu"),
...     dqa.layers.DQA(bits=4, extra_bits=2),
...     keras.layers.GlobalAveragePooling2D(),
... ])
>>> _ = dqa.calibrate(model, np.random.default_rng(0).random((32, 8, 8, 1)), verbose=0)
>>> model.layers[1].is_calibrated, int(model.layers[1].mask.numpy().sum())
(True, 1)

All state (scale, mask, signedness, whether the layer is calibrated at all) lives in
non-trainable weights. So a `.keras` file, `get_weights` / `set_weights` and a model
that was compiled before calibration all see the same thing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.backend.compile import fused
from dqa_keras.codec import huffman
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.config import MAX_BITS, MAX_EXTRA_BITS, DQAConfig, Method

# Counts are kept to about this sum: enough for Huffman lengths, safe in int32.
_COUNT_TOTAL = 2**24

_CONFIG_FIELDS = {f.name for f in dataclasses.fields(DQAConfig)} - {
    "method",
    "quantize_merges",
    "quantize_linear",
}


@dataclasses.dataclass(frozen=True)
class QuantizationParameters:
    """The result of calibration for one layer of C channels.

    Args:
        bits: Integer. Bits n of a base code.
        extra_bits: Integer. Extra bits m of important channels.
        scale: Float32 array (C,). Step of each channel.
        mask: Boolean array (C,). True for important channels.
        signed: Boolean. Whether codes are signed. Or a float: the share of the codes
            that lie below 0.
        residual_counts: Integer array (2^m,). How often each residual occurs.
        base_counts: Integer array (2^n,). How often each base code occurs, indexed by
            `base & (2^n - 1)`.
        importance: Float array (C,). The ranking's score of each channel.
        sqnr: Float, dB. Signal to quantization noise on the calibration data.
    """

    bits: int
    extra_bits: int
    scale: NDArray[np.float32]
    mask: NDArray[np.bool_]
    signed: quantizers.Signed
    residual_counts: NDArray[np.integer]
    base_counts: NDArray[np.integer]
    importance: NDArray[np.floating]
    sqnr: float


def _scaled_counts(counts: NDArray[np.integer]) -> NDArray[np.int32]:
    """Counts scaled down to int32, every symbol at least 1."""
    counts = np.asarray(counts, np.float64)
    scaled = counts * min(1.0, _COUNT_TOTAL / max(counts.sum(), 1.0))
    return np.maximum(np.rint(scaled), 1).astype(np.int32)


def _round_trip(encode: Callable[..., Any]) -> Callable[..., Any]:
    """A function that encodes values with `encode` and decodes them again."""

    def store(
        x: Any, calibrated: Any, scale: Any, inverse_scale: Any, q_min: Any, q_max: Any
    ) -> Any:
        x = ops.cast(x, "float32")
        q = encode(x, inverse_scale, q_min, q_max)
        return ops.where(calibrated, quantizers.decode(q, scale), x)

    return fused(store)


_store = _round_trip(quantizers.encode)
_store_straight_through = _round_trip(quantizers.encode_straight_through)


def _learning(x: Any, calibrated: Any, scale: Any, q_min: Any, q_max: Any) -> Any:
    """Encodes values and decodes them again, with gradients for the scale too."""
    x = ops.cast(x, "float32")
    stored = quantizers.store_learning(x, scale, q_min, q_max)
    return ops.where(calibrated, stored, x)


_store_learning = fused(_learning)


class _Positive(keras.constraints.Constraint):
    """Keeps a learning scale from crossing 0."""

    def __call__(self, w: Any) -> Any:
        return ops.maximum(w, 1e-12)


class Quantizer(keras.layers.Layer):
    """Base of the three quantizing layers; use `DQA`, `Direct` or `NoisyQuant`.

    Args:
        config: `DQAConfig`. What to quantize to and how to calibrate.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(batch, ..., channels)`; the channel axis is last and its size known.

    Output shape:
        Same as input.
    """

    def __init__(self, config: DQAConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.config = config
        # Takes over `call` while a model is observed or exported.
        self.hook: Callable[[Quantizer, Any], Any] | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the state for the channels of `input_shape`."""
        channels = input_shape[-1] if len(input_shape) > 1 else None
        if channels is None:
            raise ValueError(
                f"Quantizer {self.name!r} needs an input (batch, ..., channels) whose "
                f"number of channels is known. Received: shape={input_shape}"
            )

        def state(
            name: str,
            shape: tuple[int, ...],
            dtype: str,
            value: Literal[0, 1],
            trainable: bool = False,
        ) -> Any:
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="ones" if value else "zeros",
                trainable=trainable,
                autocast=False,
            )

        # Made as one that can learn: TensorFlow's tape watches no other.
        self.scale = state("scale", (channels,), "float32", 1, trainable=True)
        self.scale.constraint = _Positive()
        self.scale.trainable = False
        # Kept beside the scale because backends' reciprocals differ in the last bit.
        self.inverse_scale = state("inverse_scale", (channels,), "float32", 1)
        self.mask = state("mask", (channels,), "bool", 0)
        self.signed = state("signed", (), "bool", 0)
        # The share of the codes that lie below 0.
        self.negative_share = state("negative_share", (), "float32", 0)
        self.calibrated = state("calibrated", (), "bool", 0)
        bits, extra_bits = self._configured()
        if self.config.has_budget:
            # 2^n and 2^(n+m), which only calibration knows.
            self.levels = state("levels", (2,), "int32", 1)
            bits, extra_bits = MAX_BITS, MAX_EXTRA_BITS
        self.residual_counts = state("residual_counts", (2**extra_bits,), "int32", 1)
        self.base_counts = state("base_counts", (2**bits,), "int32", 1)
        self.importance = state("importance", (channels,), "float32", 0)
        self.sqnr = state("sqnr", (), "float32", 0)
        self.activation_shape = tuple(size or 0 for size in input_shape[1:])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Quantized values, or the inputs themselves before calibration."""
        if self.hook is not None:
            return self.hook(self, inputs)
        outputs = self._stored(inputs, self.calibrated, bool(training))
        return ops.cast(outputs, self.compute_dtype)

    def quantized(self, inputs: Any) -> Any:
        """`inputs` encoded and decoded again: float32, same shape."""
        return self._stored(inputs, True, training=False)

    def _stored(self, inputs: Any, calibrated: Any, training: bool) -> Any:
        if training and self.scale.trainable:
            return _store_learning(inputs, calibrated, self.scale, *self.code_range())
        store = _store_straight_through if training else _store
        return store(
            inputs, calibrated, self.scale, self.inverse_scale, *self.code_range()
        )

    def codes(self, inputs: Any) -> Any:
        """The codes that `inputs` are stored as: int32, same shape."""
        q = quantizers.encode(
            ops.cast(inputs, "float32"),
            ops.convert_to_tensor(self.inverse_scale),
            *self.code_range(),
        )
        return ops.cast(q, "int32")

    def code_range(self) -> tuple[Any, Any]:
        """Smallest and largest code of each channel: two float32 tensors (C,)."""
        mask, share = map(ops.convert_to_tensor, (self.mask, self.negative_share))
        if self.config.has_budget:
            levels = ops.convert_to_tensor(self.levels)
            return quantizers.limits(ops.where(mask, levels[1], levels[0]), share)
        return quantizers.code_range(self.bits, self.extra_bits, mask, share)

    def _configured(self) -> tuple[int, int]:
        """Bits n and m that the config asks for."""
        config = self.config
        return config.bits, config.extra_bits if config.method == "dqa" else 0

    def _split(self) -> tuple[int, int]:
        """Bits n and m: those of the config or, under a budget, of calibration."""
        if not (self.config.has_budget and self.is_calibrated):
            return self._configured()
        low, high = ops.convert_to_numpy(self.levels).tolist()
        return low.bit_length() - 1, high.bit_length() - low.bit_length()

    @property
    def bits(self) -> int:
        """Stored bits n: those of the config until calibration chooses others."""
        return self._split()[0]

    @property
    def extra_bits(self) -> int:
        """Extra bits m: those of the config until calibration chooses others."""
        return self._split()[1]

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Same as the input's; wrappers such as TimeDistributed ask for it."""
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Same shape as the inputs, in the layer's compute dtype."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def offset(self, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is added before quantization and subtracted after: float32 (C,)."""
        return np.zeros_like(scale)

    def assign(self, calibration: QuantizationParameters) -> None:
        """Sets the result of calibration and starts quantizing."""
        self.set_scale(np.asarray(calibration.scale, np.float32))
        self.mask.assign(calibration.mask)
        self.set_signed(calibration.signed)
        for weight, counts in (
            (self.residual_counts, calibration.residual_counts),
            (self.base_counts, calibration.base_counts),
        ):
            unused = weight.shape[0] - counts.size
            weight.assign(_scaled_counts(np.pad(counts, (0, unused))))
        if self.config.has_budget:
            total = calibration.bits + calibration.extra_bits
            self.levels.assign([2**calibration.bits, 2**total])
        self.importance.assign(np.asarray(calibration.importance, np.float32))
        self.sqnr.assign(calibration.sqnr)
        self.calibrated.assign(True)

    def set_signed(self, signed: quantizers.Signed) -> None:
        """Sets whether codes are signed, or the share of them that lies below 0."""
        self.signed.assign(bool(signed))
        self.negative_share.assign(quantizers.negative_share(signed))

    def set_scale(self, scale: NDArray[np.float32]) -> None:
        """Sets the step of each channel, float32 (C,), and its reciprocal."""
        self.scale.assign(scale)
        self.inverse_scale.assign(np.float32(1) / scale)

    def learn_scale(self, learns: bool) -> None:
        """Whether the scale is a trainable weight; see `dqa_keras.FineTuning`."""
        self.scale.trainable = learns

    @property
    def is_calibrated(self) -> bool:
        """Whether the layer quantizes; before calibration it passes values through."""
        return self.built and bool(ops.convert_to_numpy(self.calibrated))

    def table(self) -> LayerTable:
        """All that an interpreter needs to read and write this activation.

        Raises:
            ValueError: If the layer is not calibrated.
        """
        if not self.is_calibrated:
            raise ValueError(
                f"layer {self.name!r} is not calibrated. "
                "Call dqa_keras.calibrate(model, data) first."
            )
        to_numpy = ops.convert_to_numpy
        bits, extra_bits = self._split()
        return LayerTable(
            name=self.name,
            bits=bits,
            extra_bits=extra_bits,
            signed=self._signedness(),
            shape=self.activation_shape,
            mask=to_numpy(self.mask).astype(bool),
            scale=to_numpy(self.scale),
            residual_lengths=huffman.code_lengths(
                to_numpy(self.residual_counts)[: 2**extra_bits]
            ),
            base_lengths=huffman.code_lengths(to_numpy(self.base_counts)[: 2**bits]),
        )

    def _signedness(self) -> quantizers.Signed:
        share = float(ops.convert_to_numpy(self.negative_share))
        return share if 0 < share < 0.5 else share > 0

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        fields = self.config.to_dict()
        return {
            **super().get_config(),
            **{name: fields[name] for name in sorted(self._own_fields())},
        }

    @classmethod
    def _own_fields(cls) -> set[str]:
        return _CONFIG_FIELDS


def _config(method: Method, options: dict[str, Any]) -> DQAConfig:
    """Takes the fields of DQAConfig out of `options`."""
    fields = {name: options.pop(name) for name in _CONFIG_FIELDS & set(options)}
    return DQAConfig(**fields, method=method)


@keras.saving.register_keras_serializable(package="dqa_keras")
class DQA(Quantizer):
    r"""Stores important channels with `extra_bits` more, as base codes and residuals.

    $$q = \mathrm{clip}(\mathrm{rint}(x / s_c), q_{min}, q_{max}), \quad
      \hat x = q \cdot s_c$$

    where a channel's codes span $b_c = n + m k_c$ bits (see `dqa_keras.quantizers`).
    The gradient is straight-through: 1 inside the range, 0 outside.

    Args:
        bits: Integer in 1..8. Stored bits n. Defaults to `4`.
        extra_bits: Integer in 0..4. Extra bits m. Defaults to `2`.
        important_fraction: Float in 0..1. Share of channels that get the extra bits.
            Defaults to `0.25`.
        **options: Other fields of `dqa_keras.DQAConfig` (`signed`, `granularity`,
            `clipping`, `percentile`, `ranking`, `entropy`, `budget_bits`, `budget_kib`,
            `seed`) and of `keras.layers.Layer`.

    Raises:
        ValueError: If a value is out of its range.

    Example:
    >>> import dqa_keras as dqa
    >>> dqa.layers.DQA(bits=3, extra_bits=2).extra_bits
    2

    Reference:
        - [DQA](https://arxiv.org/abs/2412.09687)
    """

    def __init__(
        self,
        bits: int = 4,
        extra_bits: int = 2,
        important_fraction: float = 0.25,
        **options: Any,
    ) -> None:
        options.update(
            bits=bits, extra_bits=extra_bits, important_fraction=important_fraction
        )
        super().__init__(_config("dqa", options), **options)


@keras.saving.register_keras_serializable(package="dqa_keras")
class Direct(Quantizer):
    """The baseline: the same quantizer with no important channels.

    Args:
        bits: Integer in 1..8. Stored bits n. Defaults to `4`.
        **options: Other fields of `dqa_keras.DQAConfig` (`signed`, `granularity`,
            `clipping`, `percentile`) and of `keras.layers.Layer`.

    Example:
    >>> import dqa_keras as dqa
    >>> dqa.layers.Direct(bits=4).bits
    4
    """

    def __init__(self, bits: int = 4, **options: Any) -> None:
        options.update(bits=bits)
        super().__init__(_config("direct", options), **options)

    @classmethod
    def _own_fields(cls) -> set[str]:
        return _CONFIG_FIELDS - {
            "budget_bits",
            "budget_kib",
            "extra_bits",
            "important_fraction",
            "ranking",
        }


@keras.saving.register_keras_serializable(package="dqa_keras")
class NoisyQuant(Direct):
    r"""The baseline NoisyQuant: fixed noise is added before and subtracted after.

    $\hat x = q(x + \nu_c) - \nu_c$. For each channel $\nu_c$ is drawn once, uniformly
    from $[-s_c / 2, s_c / 2)$ (arXiv 2211.16056).

    Args:
        bits: Integer in 1..8. Stored bits n. Defaults to `4`.
        **options: As for `Direct`; `seed` draws the noise.

    Example:
    >>> import dqa_keras as dqa
    >>> dqa.layers.NoisyQuant(bits=4, seed=1).config.seed
    1

    Reference:
        - [NoisyQuant](https://arxiv.org/abs/2211.16056), section 3.2
    """

    def __init__(self, bits: int = 4, **options: Any) -> None:
        options.update(bits=bits)
        Quantizer.__init__(self, _config("noisyquant", options), **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the state, with the noise (zero until calibration)."""
        super().build(input_shape)
        self.noise = self.add_weight(
            name="noise",
            shape=self.scale.shape,
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def _stored(self, inputs: Any, calibrated: Any, training: bool) -> Any:
        noise = ops.where(*map(ops.convert_to_tensor, (calibrated, self.noise, 0.0)))
        x = ops.add(ops.cast(inputs, "float32"), noise)
        return ops.subtract(super()._stored(x, calibrated, training), noise)

    def codes(self, inputs: Any) -> Any:
        """The codes that `inputs` are stored as: int32, same shape."""
        return super().codes(ops.add(ops.cast(inputs, "float32"), self.noise))

    def offset(self, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """The noise, drawn from the seed: float32 (C,)."""
        draw = np.random.default_rng(self.config.seed).uniform(-0.5, 0.5, scale.shape)
        return draw.astype(np.float32) * scale

    def assign(self, calibration: QuantizationParameters) -> None:
        """Sets the calibration and the noise that goes with it."""
        super().assign(calibration)
        self.noise.assign(self.offset(np.asarray(calibration.scale, np.float32)))


_METHODS: dict[str, type[Quantizer]] = {
    "dqa": DQA,
    "direct": Direct,
    "noisyquant": NoisyQuant,
}


def make_quantizer(
    config: DQAConfig, name: str | None = None, dtype: Any = None
) -> Quantizer:
    """The layer that `config` describes."""
    layer = _METHODS[config.method]
    fields = config.to_dict()
    own = {field: fields[field] for field in layer._own_fields()}
    return layer(**own, name=name, dtype=dtype)


def quantizer_layers(model: keras.Model) -> list[Quantizer]:
    """Every quantizing layer of a model, in order, nested ones included.

    Raises:
        ValueError: If two of them share a name: reports and metadata go by name.
    """
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, Quantizer)
    ]
    seen: set[str] = set()
    for layer in layers:
        if layer.name in seen:
            raise ValueError(
                f"quantizer names must be unique in a model. Received: {layer.name!r} "
                "twice. Give one of them another name."
            )
        seen.add(layer.name)
    return layers
