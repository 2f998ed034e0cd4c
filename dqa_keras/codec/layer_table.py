"""What an interpreter must know of one quantized activation to read or write it.

A `LayerTable` is taken from a calibrated layer (`layer.table()`), travels in the
exported file's `DQA_RESIDUAL` metadata, and gives the codec its geometry, masks and
codes.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec import huffman
from dqa_keras.quantizers import Signed, negative_share


def signed_of(sign: int, bits: int) -> Signed:
    """`LayerTable.signed` of what a file says: the inverse of `LayerTable.sign`."""
    return bool(sign) if sign <= 1 else (sign - 1) / 2**bits


@dataclasses.dataclass(frozen=True, eq=False)
class LayerTable:
    """One quantized activation, as stored.

    Args:
        name: String. The quantizer layer's name.
        bits: Integer in 1..8. Bits n of a base code.
        extra_bits: Integer in 0..4. Residual bits m of important channels.
        signed: Boolean. Whether codes are signed. Or a float: the share of the codes
            that lie below 0, `zero_point / 2**bits`, where it is less than a half.
        shape: Tuple of integers, without the batch axis, channels last; 0 where the
            size is not known before run time.
        mask: Boolean array (C,). True for important channels.
        scale: Float32 array (C,). Step of each channel; its reciprocal is
            `float32(1) / scale`.
        residual_lengths: Uint8 array (2^m,). Huffman codeword lengths of residuals.
        base_lengths: Uint8 array (2^n,). Huffman codeword lengths of base codes,
            indexed by `base & (2^n - 1)`.

    Raises:
        ValueError: If the parts do not fit together; the message names the layer.
    """

    name: str
    bits: int
    extra_bits: int
    signed: Signed
    shape: tuple[int, ...]
    mask: NDArray[np.bool_]
    scale: NDArray[np.float32]
    residual_lengths: NDArray[np.uint8]
    base_lengths: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Checks that the parts fit together."""

        def require(condition: bool, rule: str) -> None:
            if not condition:
                raise ValueError(f"table of layer {self.name!r}: {rule}")

        bits, extra_bits = self.bits, self.extra_bits
        require(1 <= bits <= 8, f"bits must be in 1..8. Received: bits={bits}")
        require(
            0 <= extra_bits <= 4 and bits + extra_bits <= 8,
            "extra_bits must be in 0..4 and bits + extra_bits at most 8. "
            f"Received: bits={bits}, extra_bits={extra_bits}",
        )
        if not isinstance(self.signed, bool):
            require(
                0 < self.signed < 0.5
                and self.zero_point == self.signed * 2**bits
                and bits + extra_bits < 8,
                "signed must be a boolean, or a share z / 2^bits of the codes with "
                "0 < z < 2^(bits - 1) and bits + extra_bits below 8. "
                f"Received: signed={self.signed}, bits={bits}, "
                f"extra_bits={extra_bits}",
            )
        channels = self.mask.size
        require(
            len(self.shape) >= 1 and self.shape[-1] == channels and channels >= 1,
            f"shape must end in the number of channels. Received: shape={self.shape}, "
            f"{channels} channels",
        )
        require(min(self.shape) >= 0, f"shape must not be negative: {self.shape}")
        require(
            self.scale.shape == (channels,)
            and bool(np.all(np.isfinite(self.scale) & (self.scale > 0))),
            "scale must hold one positive finite number per channel",
        )
        for what, lengths, symbols in (
            ("residual_lengths", self.residual_lengths, 2**extra_bits),
            ("base_lengths", self.base_lengths, 2**bits),
        ):
            require(
                lengths.shape == (symbols,),
                f"{what} must hold {symbols} lengths. Received: {lengths.shape}",
            )
            try:
                huffman.check_lengths(lengths)
            except ValueError as error:
                raise ValueError(f"table of layer {self.name!r}: {error}") from error

    def __eq__(self, other: object) -> bool:
        """True if every field is equal, arrays element by element."""
        return isinstance(other, LayerTable) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            for f in dataclasses.fields(self)
        )

    @property
    def zero_point(self) -> int:
        """Integer z: how many of the base codes lie below 0."""
        return int(negative_share(self.signed) * 2**self.bits)

    @property
    def sign(self) -> int:
        """How files say it: 0 for unsigned codes, 1 for signed ones, else z + 1."""
        is_known = isinstance(self.signed, bool)
        return int(self.signed) if is_known else self.zero_point + 1

    @property
    def inverse_scale(self) -> NDArray[np.float32]:
        """Float32 array (C,): the reciprocal that encoders multiply with."""
        return np.float32(1) / self.scale

    @property
    def storage_bits(self) -> int:
        """Bits of this table that only residual coding needs: mask and lengths."""
        return self.mask.size + 8 * self.residual_lengths.size
