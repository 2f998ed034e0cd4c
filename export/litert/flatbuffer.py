"""Reads, edits and writes the FlatBuffer that a `.tflite` file is."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert.residual_table import MetadataError

IDENTIFIER = b"TFL3"

# XNNPACK reads weights with aligned loads; LiteRT 2 hands constants to a custom op only
# if they begin at a multiple of 64.
_ALIGNMENT = 16
_CONSTANT_ALIGNMENT = 64


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns byte vectors as the schema asks; the generated Python code forgets to."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        constant = x.dtype == np.uint8 and x.nbytes >= _CONSTANT_ALIGNMENT
        self.Prep(_CONSTANT_ALIGNMENT if constant else _ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


@contextmanager
def reading() -> Iterator[None]:
    """Raises MetadataError for what FlatBuffers' readers raise over a damaged file."""
    try:
        yield
    except MetadataError:
        raise
    except (
        struct.error, IndexError, TypeError, ValueError, OverflowError, AttributeError,
    ) as error:  # fmt: skip
        raise MetadataError(
            f"the .tflite file is truncated or damaged: {error}"
        ) from error


def parse(data: bytes) -> Any:
    """The model as a tree of objects (`ModelT`).

    Raises:
        MetadataError: If the file is damaged.
    """
    with reading():
        return schema.ModelT.InitFromPackedBuf(data, 0)


def serialize(model: Any) -> bytes:
    """The inverse of `parse`."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def attach_metadata(model: Any, entries: Mapping[str, bytes]) -> None:
    """Adds named metadata buffers to a parsed model."""
    for name, data in entries.items():
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        entry = schema.MetadataT()
        entry.name = name
        entry.buffer = len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]


def drop_unused(model: Any) -> None:
    """Empties the constants of a parsed model that nothing reads."""
    used = {entry.buffer for entry in model.metadata or []}
    for graph in model.subgraphs:
        read = {int(tensor) for op in graph.operators for tensor in op.inputs}
        read.update(map(int, graph.outputs))
        for number, tensor in enumerate(graph.tensors):
            if number not in read:
                tensor.buffer = 0  # by convention empty
        used |= {tensor.buffer for tensor in graph.tensors}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def set_signature(
    model: Any, inputs: Mapping[str, str], outputs: Sequence[str]
) -> None:
    """Gives a parsed model one signature, inputs and outputs in the wanted order.

    Args:
        model: `ModelT`, converted from a function whose outputs are named so that they
            sort in their order.
        inputs: From what the function calls each input to its name in the signature, in
            the order that the inputs shall have.
        outputs: Names of the outputs in the signature.
    """
    graph = model.subgraphs[0]
    (converted,) = model.signatureDefs
    tensors = {entry.name.decode(): entry.tensorIndex for entry in converted.inputs}
    # TensorFlow numbers outputs without leading zeros, then sorts them as text.
    ordered = sorted(converted.outputs, key=lambda entry: int(entry.name[7:]))
    graph.inputs = [tensors[name] for name in inputs]
    graph.outputs = [entry.tensorIndex for entry in ordered]
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs = [_tensor_map(new, tensors[old]) for old, new in inputs.items()]
    signature.outputs = list(map(_tensor_map, outputs, graph.outputs))
    model.signatureDefs = [signature]


def _tensor_map(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(tensor)
    return entry


def metadata(data: bytes) -> dict[str, bytes]:
    """The named metadata buffers of a `.tflite` file.

    Raises:
        MetadataError: If `data` is not a `.tflite` file, or is damaged.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise MetadataError(
            f"not a .tflite file: bytes 4..7 must be {IDENTIFIER!r}. "
            f"Received: {bytes(data[4:8])!r}"
        )
    with reading():
        model = schema.Model.GetRootAs(data, 0)
        count, buffers = model.MetadataLength(), model.BuffersLength()
        # Lengths come from the file: an absurd one must not keep us busy.
        if max(count, buffers) * 4 > len(data):
            raise MetadataError("the .tflite file is damaged: a list exceeds the file")
        _check_whole(model, data)
        contents = {}
        for index in range(count):
            entry = model.Metadata(index)
            if not entry.Buffer() < buffers:
                raise MetadataError(
                    "the .tflite file is damaged: metadata points to buffer "
                    f"{entry.Buffer()} of {buffers}"
                )
            content = model.Buffers(entry.Buffer()).DataAsNumpy()
            name = (entry.Name() or b"").decode(errors="replace")
            contents[name] = bytes(content) if isinstance(content, np.ndarray) else b""
    return contents


def _check_whole(model: Any, data: bytes) -> None:
    """Raises MetadataError if ops or constants of a file lie behind its end.

    Whatever wrote the file, its last bytes are of one or the other, or of an archive.
    """
    codes = model.OperatorCodesLength()
    if codes * 4 > len(data):
        raise MetadataError("the .tflite file is damaged: a list exceeds the file")
    for code in map(model.OperatorCodes, range(codes)):
        (code.CustomCode(), code.DeprecatedBuiltinCode(), code.BuiltinCode())
        code.Version()
    cut = MetadataError("the .tflite file is cut: a constant goes on behind its end")
    for buffer in map(model.Buffers, range(model.BuffersLength())):
        values = buffer.DataAsNumpy()
        if isinstance(values, np.ndarray) and values.size != buffer.DataLength():
            raise cut
        if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > len(data):
            raise cut


_NAMES = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if not name.startswith("_")
}

# Ops whose second input is a kernel: which input they convolve, which axis of the
# kernel is the output's. The last axis is the input's, or both in a depthwise kernel.
KERNEL_OPS = {
    "CONV_2D": (0, 0),
    "DEPTHWISE_CONV_2D": (0, 3),
    "FULLY_CONNECTED": (0, 0),
    "TRANSPOSE_CONV": (2, 0),
}


def bias_place(kind: str) -> int:
    """Which input of an op of `KERNEL_OPS` is its bias, if it has one."""
    return 3 if kind == "TRANSPOSE_CONV" else 2


BUILTIN = set(_NAMES.values()) - {"CUSTOM"}


class Graph:
    """The main subgraph of a parsed model, for walking along its tensors.

    Args:
        model: `ModelT`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self.ops: list[Any] = self._graph.operators
        self._producers = {
            tensor: op for op in self.ops for tensor in op.outputs if tensor >= 0
        }

    def kind(self, op: Any) -> str:
        """Name of an op, such as `"CONV_2D"`; `""` for no op at all."""
        return "" if op is None else _op_name(self._model.operatorCodes[op.opcodeIndex])

    def name(self, tensor: int) -> str:
        """Name of a tensor."""
        return (self._graph.tensors[tensor].name or b"").decode()

    def producer(self, tensor: int) -> Any:
        """The op that writes a tensor, or None."""
        return self._producers.get(tensor)

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor's values are in the file."""
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def upper_bound(self, tensor: int) -> np.ndarray | None:
        """The upper end of a tensor's range (C,), where the file says it."""
        known = self._graph.tensors[tensor].quantization
        return None if known is None or known.max is None else np.asarray(known.max)

    def variable_input(self, op: Any) -> int:
        """The first input of an op that is not a constant."""
        for tensor in op.inputs:
            if not self.is_constant(tensor):
                return int(tensor)
        raise ValueError(f"op {self.kind(op)} has constant inputs only")

    def add_outputs(self, tensors: list[int]) -> None:
        """Makes inner tensors outputs of the model, behind the ones it has."""
        self._graph.outputs = [*self._graph.outputs, *tensors]


def _op_name(code: Any) -> str:
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if _NAMES.get(builtin) == "CUSTOM":
        return (code.customCode or b"CUSTOM").decode(errors="replace")
    return _NAMES.get(builtin, f"builtin {builtin}")


def op_names(model: Any) -> list[str]:
    """Names of all ops of a parsed model, in order; custom ops by their own name."""
    return [
        _op_name(model.operatorCodes[op.opcodeIndex])
        for graph in model.subgraphs
        for op in graph.operators
    ]
