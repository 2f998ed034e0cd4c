"""Groups connected nodes: each group with a quantizer becomes one `DQA` op."""

import dataclasses

from dqa_keras.export.litert.model_reader import ModelReader
from dqa_keras.export.packed.node import Node


@dataclasses.dataclass
class Region:
    """Nodes that become one op.

    Args:
        nodes: List of `Node`, in an order in which they can run.
        inputs: List of tensors from outside.
        outputs: List of tensors that are wanted outside.
    """

    nodes: list[Node]
    inputs: list[int]
    outputs: list[int]


def regions(reader: ModelReader, nodes: list[Node]) -> list[Region]:
    """Groups connected nodes. A group without quantizers is no region."""
    producer = {node.output: number for number, node in enumerate(nodes)}
    made_by = {
        int(tensor): index
        for index, op in enumerate(reader.graph.ops)
        for tensor in op.outputs
    }
    owner = {index: n for n, node in enumerate(nodes) for index in node.ops}
    # Borders crossed on the way from the inputs: nodes with the same number of
    # them can never have an outside op between them.
    borders: list[int] = [0] * len(reader.graph.ops)
    for index, op in enumerate(reader.graph.ops):
        for tensor in op.inputs:
            source = made_by.get(int(tensor))
            if source is not None:
                crossed = (source in owner) != (index in owner)
                borders[index] = max(borders[index], borders[source] + crossed)
    parent = list(range(len(nodes)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    first_of: dict[int, int] = {}
    for number, node in enumerate(nodes):
        # Nodes of one op, its outputs, stay together.
        parent[root(number)] = root(first_of.setdefault(node.ops[0], number))
        for tensor in node.inputs:
            source = producer.get(tensor)
            if source is not None and (
                borders[nodes[source].ops[0]] == borders[node.ops[0]]
            ):
                parent[root(number)] = root(source)
    groups: dict[int, list[Node]] = {}
    for number, node in enumerate(nodes):
        groups.setdefault(root(number), []).append(node)
    return [
        _region(reader, group)
        for group in groups.values()
        if any(node.kind == "quantize" for node in group)
    ]


def _region(reader: ModelReader, nodes: list[Node]) -> Region:
    ops = {index for node in nodes for index in node.ops}
    written = {node.output for node in nodes}
    read = [tensor for node in nodes for tensor in node.inputs]
    inputs = list(dict.fromkeys(tensor for tensor in read if tensor not in written))
    outputs = [
        node.output
        for node in nodes
        if node.output in reader.outputs
        or any(index not in ops for index in reader.consumers.get(node.output, []))
    ]
    return Region(nodes, inputs, outputs)
