"""Bytes instead of float32 values where a packed model begins and ends."""

from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.interpreter import Runner, images
from dqa_keras.export.plan.program import ByteCodes


def take_bytes(model: Any, packed_op: str) -> None:
    """Makes the inputs of a parsed model uint8.

    Args:
        model: `ModelT`.
        packed_op: Name of the op that can read bytes.

    Raises:
        ValueError: If an op that computes on floats reads one.
    """
    graph = flatbuffer.Graph(model)
    for tensor in map(int, model.subgraphs[0].inputs):
        kinds = {graph.kind(op) for op in graph.ops if tensor in op.inputs}
        if kinds != {packed_op}:
            raise ValueError(
                "uint8 inputs must go straight into packed regions. Received: input "
                f"{graph.name(tensor)!r}, which {', '.join(sorted(kinds))} reads"
            )
        model.subgraphs[0].tensors[tensor].type = schema.TensorType.UINT8


def output_codes(data: bytes, samples: Any) -> list[ByteCodes]:
    """Codes for the range that each output of a file has on the samples."""
    run = Runner(data)
    spans = [
        [(float(x.min()), float(x.max())) for x in run(image)]
        for image in images(samples)
    ]
    return [
        ByteCodes.of(min(low for low, _ in span), max(high for _, high in span))
        for span in zip(*spans, strict=True)
    ]


def give_bytes(model: Any, packed_op: str, codes: Sequence[ByteCodes]) -> None:
    """Makes the outputs of a parsed model uint8, with scale and zero point.

    Args:
        model: `ModelT`.
        packed_op: Name of the op that can write bytes.
        codes: Sequence of `ByteCodes`, one an output.

    Raises:
        ValueError: If another op makes one, or any op reads one.
    """
    graph = flatbuffer.Graph(model)
    ends = model.subgraphs[0]
    for tensor, code in zip(map(int, ends.outputs), codes, strict=True):
        makers = [graph.kind(op) for op in graph.ops if tensor in op.outputs]
        readers = [graph.kind(op) for op in graph.ops if tensor in op.inputs]
        if makers != [packed_op] or readers:
            raise ValueError(
                "uint8 outputs must come straight from packed regions, and end there. "
                f"Received: output {graph.name(tensor)!r}, made by "
                f"{', '.join(makers) or 'no op'} and read by "
                f"{', '.join(readers) or 'none'}. End the model in front of such an op "
                "(a softmax, for instance), or leave outputs='float32'."
            )
        details = schema.QuantizationParametersT()
        details.scale, details.zeroPoint = [code.step], [code.zero]
        ends.tensors[tensor].type = schema.TensorType.UINT8
        ends.tensors[tensor].quantization = details
