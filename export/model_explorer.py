"""Figures of each quantizer as node data for ai-edge-model-explorer.

Model Explorer draws the graph of a `.tflite` and colours nodes by a number; it finds a
node by the name of a tensor that the node writes. Open the file with the overlays:

    model-explorer model.tflite  # then "Add per-node data", or from Python:
    config = model_explorer.config()
    config.add_model_from_path("model.tflite")
    config.add_node_data_from_path("model.stored_bits.json")
    model_explorer.visualize_from_config(config)
"""

import json
import os
from pathlib import Path
from typing import Any

from dqa_keras import files
from dqa_keras.export.litert import flatbuffer, verification
from dqa_keras.report.findings import Findings, Layer

# The name that Model Explorer gives the first subgraph of a `.tflite`.
_GRAPH = "main"

# Okabe and Ito's orange to blue: the end that asks for attention is orange.
_LOW, _HIGH = "#E69F00", "#56B4E9"


def _nodes(path: str | os.PathLike) -> dict[int, list[str]]:
    """Names of the tensors that the ops of each quantizer write."""
    graph = flatbuffer.Graph(flatbuffer.parse(Path(path).read_bytes()))
    names: dict[int, list[str]] = {}
    for op in graph.ops:
        name = graph.name(op.outputs[0])
        number = verification.quantizer_number(name)
        if number is not None:
            names.setdefault(number, []).append(name)
    return names


def _graph_data(
    title: str, values: dict[str, float], colors: tuple[str, str]
) -> dict[str, Any]:
    return {
        _GRAPH: {
            "name": title,
            "results": {name: {"value": value} for name, value in values.items()},
            "gradient": [
                {"stop": stop, "bgColor": color}
                for stop, color in zip((0, 1), colors, strict=True)
            ],
        }
    }


def write(path: str | os.PathLike, findings: Findings, prefix: str) -> list[Path]:
    """Writes two overlays beside each other: stored bits, and SQNR of the activation.

    Args:
        path: Path of the built-in export that `findings` was measured on.
        findings: `Findings` of `examine_tflite`.
        prefix: Start of the files' names.

    Returns:
        The paths: `prefix.stored_bits.json` and `prefix.sqnr.json`.

    Raises:
        ValueError: If the file is packed: its quantizers are not nodes.
    """
    nodes = _nodes(path)
    if not nodes:
        raise ValueError(
            f"{path} has no quantizers among its nodes: it must be a built-in export"
        )

    def values(of: str) -> dict[str, float]:
        layers: list[Layer] = findings.layers
        return {
            name: round(getattr(layers[number], of), 4)
            for number, names in nodes.items()
            for name in names
            if getattr(layers[number], of) is not None
        }

    written = []
    for of, title, colors in (
        ("stored_bits", "stored bits a value", (_HIGH, _LOW)),
        ("sqnr", "SQNR, dB", (_LOW, _HIGH)),
    ):
        target = Path(f"{prefix}.{of}.json")
        with files.replacing(target) as temporary:
            data = _graph_data(title, values(of), colors)
            temporary.write_text(json.dumps(data, indent=1))
        written.append(target)
    return written
