"""Functions of one value that several element-wise ops compute together.

SiLU, `x * sigmoid(x)`, is two ops of LiteRT, softsign three. What they compute from a
value is one function, which a region holds as its values at equal distances.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed.node import Node, node_of
from dqa_keras.export.packed.patterns import quantize

# More ops than any activation has.
_MOST_OPS = 32


def _gelu(op: Any, x: NDArray) -> NDArray:
    if op.builtinOptions.approximate:
        return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    # NumPy has no erf; of these few values Python's own is soon computed.
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


# What ops compute, by their kind: operands are float64.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ABS": lambda op, x: np.abs(x),
    "ADD": lambda op, x, y: x + y,
    "DIV": lambda op, x, y: x / y,
    "ELU": lambda op, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "EXP": lambda op, x: np.exp(x),
    "GELU": _gelu,
    "GREATER": lambda op, x, y: x > y,
    "GREATER_EQUAL": lambda op, x, y: x >= y,
    "HARD_SWISH": lambda op, x: x * np.clip(x + 3, 0, 6) / 6,
    "LEAKY_RELU": lambda op, x: np.where(x > 0, x, op.builtinOptions.alpha * x),
    "LESS": lambda op, x, y: x < y,
    "LESS_EQUAL": lambda op, x, y: x <= y,
    "LOG": lambda op, x: np.log(x),
    "LOGISTIC": lambda op, x: 1 / (1 + np.exp(-x)),
    "MAXIMUM": lambda op, x, y: np.maximum(x, y),
    "MINIMUM": lambda op, x, y: np.minimum(x, y),
    "MUL": lambda op, x, y: x * y,
    "NEG": lambda op, x: -x,
    "POW": lambda op, x, y: np.power(x, y),
    "RELU": lambda op, x: np.maximum(x, 0),
    "RELU6": lambda op, x: np.clip(x, 0, 6),
    "RELU_N1_TO_1": lambda op, x: np.clip(x, -1, 1),
    "RSQRT": lambda op, x: 1 / np.sqrt(x),
    "SELECT": lambda op, c, x, y: np.where(c, x, y),
    "SELECT_V2": lambda op, c, x, y: np.where(c, x, y),
    "SQRT": lambda op, x: np.sqrt(x),
    "SQUARE": lambda op, x: x * x,
    "SQUARED_DIFFERENCE": lambda op, x, y: (x - y) ** 2,
    "SUB": lambda op, x, y: x - y,
    "TANH": lambda op, x: np.tanh(x),
}

# What a region computes exactly, if all but one operand are constants.
_PLAIN = {
    "ADD", "HARD_SWISH", "MAXIMUM", "MINIMUM", "MUL", "RELU", "RELU6", "RELU_N1_TO_1",
    "SUB",
}  # fmt: skip

# Ops into which LiteRT fuses an activation.
_FUSED = {"ADD", "DIV", "MUL", "SUB"}


def function(reader: ModelReader, index: int) -> Node | None:
    """The longest function of one value that begins with an op, unless it is plain.

    Args:
        reader: `ModelReader` of the model.
        index: Integer. The op.

    Returns:
        A node of kind `function`. `None` if the op begins none.
    """
    sources = _variables(reader, index)
    if len(sources) != 1 or not _computes(reader, index):
        return None
    (source,) = sources
    # Members behind each value that is known from the source; op `index` is among all.
    known: dict[int, list[int]] = {source: [index]}
    longest: list[int] = []
    for at in range(index, len(reader.graph.ops)):
        operands = _variables(reader, at)
        if not operands or not operands <= known.keys() or not _computes(reader, at):
            continue
        if at > index and quantize(reader, at) is not None:
            continue
        members = sorted({at}.union(*(known[tensor] for tensor in operands)))
        if len(members) > _MOST_OPS:
            continue
        known[int(reader.graph.ops[at].outputs[0])] = members
        if _is_curved(reader, at) and _outputs(reader, members) == [at]:
            longest = members
    if not longest:
        return None
    return node_of(
        reader,
        "function",
        index,
        [source],
        ops=longest,
        output=int(reader.graph.ops[longest[-1]].outputs[0]),
        function=lambda x: _value(reader, longest, {source: x}),
    )


def _variables(reader: ModelReader, index: int) -> set[int]:
    inputs = reader.graph.ops[index].inputs
    return {int(tensor) for tensor in inputs if not reader.graph.is_constant(tensor)}


def _computes(reader: ModelReader, index: int) -> bool:
    """Whether an op is element-wise, and its constants are the same everywhere."""
    op = reader.graph.ops[index]
    kind = reader.graph.kind(op)
    if kind not in _FUNCTIONS:
        return False
    variables = _variables(reader, index)
    sizes = [reader.sizes(tensor) for tensor in [*variables, int(op.outputs[0])]]
    if any(size != sizes[0] for size in sizes):
        return False
    try:
        for tensor in op.inputs:
            if int(tensor) not in variables:
                _constant(reader, tensor)
        if kind in _FUSED:
            reader.clamp(op)
    except Unsupported:
        return False
    return True


def _constant(reader: ModelReader, tensor: int) -> float:
    values = reader.constant(tensor)
    if not values.size or np.any(values != values.flat[0]):
        raise Unsupported("a constant operand that differs between channels")
    return float(values.flat[0])


def _is_curved(reader: ModelReader, index: int) -> bool:
    op = reader.graph.ops[index]
    kind = reader.graph.kind(op)
    if not reader.is_float(int(op.outputs[0])):
        return False
    if kind not in _PLAIN:
        return True
    constant = any(reader.graph.is_constant(tensor) for tensor in op.inputs)
    # A square has one variable, twice.
    return not constant and (
        len(_variables(reader, index)) == 2 or (kind == "MUL" and len(op.inputs) == 2)
    )


def _outputs(reader: ModelReader, members: Sequence[int]) -> list[int]:
    """The members whose values others read."""
    return [
        member
        for member in members
        for tensor in map(int, reader.graph.ops[member].outputs)
        if tensor in reader.outputs
        or not set(reader.consumers.get(tensor, [])) <= set(members)
    ]


def _value(
    reader: ModelReader, members: Sequence[int], values: dict[int, NDArray]
) -> NDArray[np.float64]:
    for member in members:
        op = reader.graph.ops[member]
        kind = reader.graph.kind(op)
        operands = [
            values[int(tensor)]
            if int(tensor) in values
            else np.float64(_constant(reader, tensor))
            for tensor in op.inputs
        ]
        result = _FUNCTIONS[kind](op, *operands)
        if kind in _FUSED:
            result = np.clip(result, *reader.clamp(op))
        values[int(op.outputs[0])] = result
    return result
