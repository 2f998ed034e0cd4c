"""How to quantize activations: one small, frozen, serialisable value.

>>> import dqa_keras as dqa
>>> config = dqa.DQAConfig(bits=4, extra_bits=2, important_fraction=0.25)
>>> config.replace(bits=3).bits
3
>>> dqa.DQAConfig.from_dict(config.to_dict()) == config
True
>>> dqa.DQAConfig(bits=0)
Traceback (most recent call last):
    ...
ValueError: bits must be in 1..8. Received: bits=0
"""

import dataclasses
import math
from typing import Any, Literal, get_args

Method = Literal["dqa", "direct", "noisyquant"]
Granularity = Literal["channel", "tensor"]
Clipping = Literal["mse", "max", "percentile", "output"]
Ranking = Literal["mse", "greedy", "fisher", "output", "auto"]
Entropy = Literal["residual", "all"]

# The one list of what each field may be; the command and the docs follow it.
CHOICES: dict[str, tuple[str, ...]] = {
    "method": get_args(Method),
    "granularity": get_args(Granularity),
    "clipping": get_args(Clipping),
    "ranking": get_args(Ranking),
    "entropy": get_args(Entropy),
}

MAX_BITS = 8
MAX_EXTRA_BITS = 4


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be an integer. Received: {name}={value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}. Received: {name}={value}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not low <= value <= high
    ):
        raise ValueError(
            f"{name} must be a number in {low:g}..{high:g}. Received: {name}={value!r}"
        )


@dataclasses.dataclass(frozen=True)
class DQAConfig:
    """How activations are quantized, calibrated and ranked.

    The defaults give every layer the same bits, and calibrate fast. A budget
    (`budget_bits`) looks at what each layer costs the output: better at as many bits or
    fewer, at a longer calibration. `DQAConfig.paper` gives the setting of the paper.

    Args:
        bits: Integer in 1..8. Stored bits n of every base code. Defaults to `4`.
        extra_bits: Integer in 0..4, `bits + extra_bits <= 8`. Extra bits m of important
            channels. They are shifted out and stored as a Huffman-coded residual. Used
            by method `"dqa"` only. Defaults to `2`.
        important_fraction: Float in 0..1. Share of the channels of each layer that
            gets the extra bits. Defaults to `0.25`.
        method: `"dqa"`, or one of the baselines `"direct"` (no channel is important)
            and `"noisyquant"` (fixed uniform noise, arXiv 2211.16056). Defaults to
            `"dqa"`.
        signed: `True`: half of the codes lie below 0. `False`: none. `"auto"`: none
            where calibration saw no negative value; else a zero point that leaves fewer
            of them below 0, if that takes a tenth or more off the squared error of the
            calibration data, as after SiLU; else half. Where `bits + extra_bits` is 8,
            or with `clipping="percentile"`, it is half. Defaults to `"auto"`.
        granularity: `"channel"` or `"tensor"`: whether each channel has a scale of
            its own or all channels of a layer share one range. Defaults to
            `"channel"`.
        clipping: How the range of the codes is chosen. `"mse"`: least squared error.
            `"max"`: the largest value seen. `"percentile"`: the range that covers
            `percentile` percent of the values. `"output"`: a layer's ranges of `"mse"`,
            times the one factor that changes the model's output least. Defaults to
            `"mse"`.
        percentile: Float in 50..100. Share of the magnitudes that the range covers;
            used with `clipping="percentile"`. Defaults to `99.99`.
        ranking: How channels are ranked. `"mse"`: by the squared error that the extra
            bits remove. `"greedy"`: the paper's; the extra bits of each channel are
            tried, and compared by the model's output. `"fisher"`: by squared error
            times the squared gradient of the loss; labels are the model's own
            predictions. `"output"`: the same, with the squared change of the model's
            output as the loss. The last two take one backward pass and compare channels
            across layers. `"auto"`: `"output"` with a budget, `"mse"` without. Defaults
            to `"auto"`.
        entropy: What is stored in Huffman code: `"residual"`, or `"all"` for the base
            codes too, with one code per layer. Values are the same; only stored bits
            differ. Defaults to `"residual"`.
        budget_bits: Float in 1..8. Stored bits per activation that the whole model may
            take, as `storage_bits` measures them. Calibration then chooses n, m, the
            important channels and the ranges of every layer, and `bits`, `extra_bits`
            and `important_fraction` are not used (see
            `dqa_keras.calibration.bit_allocation`). Needs method `"dqa"`,
            granularity `"channel"` and clipping `"mse"`. Defaults to `None`.
        budget_kib: Float. The same in KiB for one input. Defaults to `None`.
        quantize_merges: Boolean. Whether `quantize_model` also puts quantizers after
            merges: sums, products, concatenations and the like, as layers or as
            operators. Defaults to `False`.
        quantize_linear: Boolean. Whether `quantize_model` also puts quantizers after
            convolutions, dense layers, batch normalizations and sums that have no
            activation, where their output must be stored. It must if several operations
            read it, or one that is not a sum, a normalization or an activation, as
            after MobileNetV2's linear bottlenecks. These quantizers have signed codes.
            Defaults to `False`.
        seed: Integer. Seeds the noise of NoisyQuant and the choice of the images on
            which `"greedy"` tries the channels. Defaults to `0`.

    Raises:
        ValueError: If a value is out of its range; the message names rule and value.

    Reference:
        - [DQA: Efficient Deep Quantization of DNN Activations](
          https://arxiv.org/abs/2412.09687)
    """

    bits: int = 4
    extra_bits: int = 2
    important_fraction: float = 0.25
    method: Method = "dqa"
    signed: bool | Literal["auto"] = "auto"
    granularity: Granularity = "channel"
    clipping: Clipping = "mse"
    percentile: float = 99.99
    ranking: Ranking = "auto"
    entropy: Entropy = "residual"
    budget_bits: float | None = None
    budget_kib: float | None = None
    quantize_merges: bool = False
    quantize_linear: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field, so that no invalid config can exist."""
        for name, allowed in CHOICES.items():
            _choice(name, getattr(self, name), allowed)
        _choice("signed", self.signed, ("auto", True, False))
        _choice("quantize_merges", self.quantize_merges, (True, False))
        _choice("quantize_linear", self.quantize_linear, (True, False))
        _integer("bits", self.bits, 1, MAX_BITS)
        _integer("extra_bits", self.extra_bits, 0, MAX_EXTRA_BITS)
        _integer("seed", self.seed, 0, 2**31 - 1)
        if self.bits + self.extra_bits > MAX_BITS and self.method == "dqa":
            raise ValueError(
                f"bits + extra_bits must be at most {MAX_BITS}: codes travel in 8 "
                f"bits. Received: bits={self.bits}, extra_bits={self.extra_bits}"
            )
        _number("important_fraction", self.important_fraction, 0, 1)
        _number("percentile", self.percentile, 50, 100)
        if self.budget_bits is not None:
            _number("budget_bits", self.budget_bits, 1, MAX_BITS)
        if self.budget_kib is not None:
            _number("budget_kib", self.budget_kib, 0, math.inf)
        if self.has_budget:
            self._check_budget()

    def _check_budget(self) -> None:
        if self.budget_bits is not None and self.budget_kib is not None:
            raise ValueError(
                "a budget is given in bits or in KiB, not in both. Received: "
                f"budget_bits={self.budget_bits}, budget_kib={self.budget_kib}"
            )
        for name, needed in (
            ("method", "dqa"),
            ("granularity", "channel"),
            ("clipping", "mse"),
        ):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"a budget needs {name}={needed!r}: ranges and bits are chosen "
                    f"together. Received: {name}={getattr(self, name)!r}"
                )
        if self.ranking == "greedy":
            raise ValueError(
                "a budget needs a ranking that compares channels of all layers: "
                "'output', 'fisher' or 'mse'. Received: ranking='greedy'"
            )

    @property
    def has_budget(self) -> bool:
        """Whether calibration chooses n and m under a budget."""
        return self.budget_bits is not None or self.budget_kib is not None

    @property
    def ranked_by(self) -> Literal["mse", "greedy", "fisher", "output"]:
        """The ranking, with `"auto"` resolved."""
        if self.ranking != "auto":
            return self.ranking
        return "output" if self.has_budget else "mse"

    @classmethod
    def paper(cls, bits: int = 4, **changes: Any) -> "DQAConfig":
        """The paper's setting (arXiv 2412.09687, section 3).

        Signed symmetric codes, one maximum range a tensor, greedy ranking, the same
        share of important channels in every layer.

        Args:
            bits: Integer. Stored bits n. Defaults to `4`.
            **changes: Fields to set otherwise.

        Returns:
            A `DQAConfig`.

        Example:
        >>> import dqa_keras as dqa
        >>> dqa.DQAConfig.paper(bits=3).ranking
        'greedy'
        """
        fields = {
            "bits": bits,
            # Picked on held-out training images by benchmarks/paper_share.py.
            "important_fraction": 0.75,
            "signed": True,
            "granularity": "tensor",
            "clipping": "max",
            "ranking": "greedy",
        }
        return cls(**{**fields, **changes})

    def replace(self, **changes: Any) -> "DQAConfig":
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "DQAConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: If a field is unknown or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(
                f"DQAConfig has no field {unknown[0]!r}. Known: {sorted(known)}"
            )
        return cls(**fields)
