"""Activations as n-bit codes and Huffman-coded residuals, byte for byte.

>>> from dqa_keras import codec
>>> codec.runtime().startswith(("native", "numpy"))
True
"""

from dqa_keras.codec.native import Codec, runtime

__all__ = ["Codec", "runtime"]
