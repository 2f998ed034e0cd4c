"""The choices of `export_tflite`, and which of them go together."""

import dataclasses
from typing import Any, Literal

from dqa_keras.backend import running
from dqa_keras.export.litert.conversion import Weights

Mode = Literal["builtin", "packed"]
Bytes = Literal["float32", "uint8"]

_CHOICES = {
    "mode": ("builtin", "packed"),
    "inputs": ("float32", "uint8"),
    "outputs": ("float32", "uint8"),
    "skips": ("raw", "coded"),
    "weights": ("float32", "float16", "int8"),
}
# What these are unless the mode is packed.
_BUILTIN = {"inputs": "float32", "outputs": "float32", "skips": "raw"}

# KiB: where offsets in an arena end.
_LARGEST_ARENA = 2**21


@dataclasses.dataclass(frozen=True)
class Options:
    """Arguments of `export_tflite`; each field is described there."""

    mode: Mode
    strict: bool
    inputs: Bytes
    outputs: Bytes
    skips: Literal["raw", "coded"]
    weights: Weights
    arena_kib: float | None = None

    @property
    def takes_bytes(self) -> bool:
        """Whether inputs are uint8."""
        return self.inputs == "uint8"

    @property
    def gives_bytes(self) -> bool:
        """Whether outputs are uint8."""
        return self.outputs == "uint8"

    @property
    def folds_scales(self) -> bool:
        """Whether scales of quantizers go into weights."""
        return self.mode == "builtin" and self.weights == "float32"

    def check(self, samples: Any) -> None:
        """Refuses what cannot be exported, before any work.

        Args:
            samples: The samples that the user gave, or `None`.

        Raises:
            ValueError: If Keras runs on another backend than TensorFlow, a value is
                unknown, or values do not go together.
        """
        if not running.runs_on("tensorflow"):
            raise ValueError(
                "export_tflite needs TensorFlow. Received: Keras on "
                f"{running.name()}. Save the calibrated model with "
                "model.save('model.keras') and export that file under "
                "KERAS_BACKEND=tensorflow."
            )
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(repr, allowed))}. "
                    f"Received: {name}={value!r}"
                )
        if not isinstance(self.strict, bool):
            raise ValueError(f"strict must be True or False. Received: {self.strict!r}")
        if self.mode == "packed" and self.weights != "float32":
            raise ValueError(
                "mode='packed' chooses its own int8 weights: leave weights at "
                f"'float32'. Received: weights={self.weights!r}"
            )
        if self.mode != "packed" and self.strict:
            raise ValueError(
                f"strict=True needs mode='packed'. Received: mode={self.mode!r}"
            )
        for name, usual in _BUILTIN.items():
            value = getattr(self, name)
            if self.mode != "packed" and value != usual:
                raise ValueError(
                    f"{name}={value!r} needs mode='packed'. Received: {self.mode!r}"
                )
        self._check_arena()
        if self.gives_bytes and samples is None:
            raise ValueError(
                "outputs='uint8' needs samples, whose range the codes take. "
                "Received: samples=None"
            )

    def _check_arena(self) -> None:
        """Raises ValueError if no arena can be so large, or there is none."""
        kib = self.arena_kib
        if kib is None:
            return
        is_number = isinstance(kib, (int, float)) and not isinstance(kib, bool)
        if not is_number or not 0 < kib < _LARGEST_ARENA:
            raise ValueError(
                f"arena_kib must be a number in 0..{_LARGEST_ARENA:,}, without the "
                f"ends. Received: arena_kib={kib!r}"
            )
        if self.mode != "packed":
            raise ValueError(f"arena_kib needs mode='packed'. Received: {self.mode!r}")
