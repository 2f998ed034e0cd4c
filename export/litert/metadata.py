"""What an exported file says about itself: residual tables and configuration.

Two metadata buffers: `DQA_RESIDUAL` (binary, for interpreters) and `DQA_CONFIG` (JSON,
for people). `FORMAT.md` describes both.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import keras

from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.export.litert import flatbuffer, residual_table, task_metadata
from dqa_keras.export.litert.annotations import checked_labels, checked_normalization
from dqa_keras.export.litert.residual_table import MetadataError
from dqa_keras.graph.insertion import skipped
from dqa_keras.layers import quantizer_layers
from dqa_keras.version import __version__

CONFIG_NAME = "DQA_CONFIG"
CONFIG_VERSION = 2
_WITH_TABLES = 1  # files that say scales here too


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What `read_metadata` found.

    Args:
        tables: Dictionary from layer name to `LayerTable`.
        config: Dictionary, the JSON of `DQA_CONFIG`.
    """

    tables: dict[str, LayerTable]
    config: dict[str, Any]


def describe(
    model: keras.Model,
    weights: str,
    normalization: tuple[Sequence[float], Sequence[float]] | None,
    labels: Sequence[str | int] | None,
) -> dict[str, bytes]:
    """The metadata buffers of a calibrated model.

    Args:
        model: Keras model with calibrated quantizers.
        weights: String. How the weights are stored.
        normalization: Mean and standard deviation a channel that the caller must
            apply, or `None` if the model takes raw values.
        labels: Class labels, or `None`; see `checked_labels`.

    Returns:
        Dictionary from buffer name to bytes.

    Raises:
        ValueError: If there is no quantizing layer, one is not calibrated, or the
            normalization or the labels do not fit the model.
    """
    layers = quantizer_layers(model)
    if not layers:
        raise ValueError(
            f"model {model.name!r} has no quantizing layer. Use "
            "dqa_keras.quantize_model(model, config) first."
        )
    labels = checked_labels(model, labels)
    checked_normalization(model, normalization)
    tables = [layer.table() for layer in layers]
    config = {
        "format": CONFIG_VERSION,
        "tool": f"dqa_keras {__version__}",
        "model": model.name,
        "weights": weights,
        "input": None
        if normalization is None
        else {
            "mean": [float(value) for value in normalization[0]],
            "std": [float(value) for value in normalization[1]],
        },
        "labels": labels,
        "layers": [
            {
                "name": layer.name,
                "config": layer.config.to_dict(),
                "shape": list(table.shape),
                "signed": bool(table.signed),
                **({"zero_point": table.zero_point} if table.sign > 1 else {}),
            }
            for layer, table in zip(layers, tables, strict=True)
        ],
        "skipped": [skip._asdict() for skip in skipped(model)],
    }
    return {
        residual_table.NAME: residual_table.encode(tables),
        # Interpreters hold two copies of it: it says nothing that the tables say for
        # each channel.
        CONFIG_NAME: json.dumps(config, separators=(",", ": ")).encode(),
    }


def read_metadata(path: str | os.PathLike) -> Metadata:
    """Reads tables and configuration back from an exported file.

    Args:
        path: Path of a `.tflite` file that `export_tflite` wrote.

    Returns:
        A `Metadata`: `.tables` by layer name, `.config` as plain JSON values.

    Raises:
        MetadataError: If the file is missing, truncated, not a `.tflite`, not from
            `dqa_keras`, damaged, or from a newer version.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(8)
            # What begins otherwise is refused unread: a device may have no end.
            if data[4:] == flatbuffer.IDENTIFIER:
                data += file.read()
    except OSError as error:
        raise MetadataError(f"cannot read {path}: {error.strerror}") from error
    try:
        entries = flatbuffer.metadata(data)
        has_labels = task_metadata.LABELS_FILE.encode() in entries.get(
            task_metadata.NAME, b""
        )
        if has_labels and not zipfile.is_zipfile(io.BytesIO(data)):
            raise MetadataError(
                "the .tflite file is cut: the archive with its labels has no end"
            )
        return _parsed(entries)
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}") from error


def _parsed(contents: dict[str, bytes]) -> Metadata:
    for name in (residual_table.NAME, CONFIG_NAME):
        if name not in contents:
            raise MetadataError(
                f"it holds no {name} metadata: it was not exported by dqa_keras"
            )
    tables = residual_table.decode(contents[residual_table.NAME])
    try:
        config = json.loads(contents[CONFIG_NAME])
    except ValueError as error:
        raise MetadataError(f"{CONFIG_NAME} is not JSON: {error}") from error
    known = (_WITH_TABLES, CONFIG_VERSION)
    if not isinstance(config, dict) or config.get("format") not in known:
        raise MetadataError(
            f"{CONFIG_NAME} must be of format {' or '.join(map(str, known))}. Upgrade "
            "dqa_keras, or export the file again."
        )
    _check(config)
    return Metadata({table.name: table for table in tables}, config)


def _check(config: dict[str, Any]) -> None:
    """Raises MetadataError unless the fields are of the kinds that readers rely on."""

    def is_of(value: Any, kind: Any) -> bool:
        if isinstance(kind, list):
            return isinstance(value, list) and all(is_of(v, kind[0]) for v in value)
        if isinstance(kind, dict):
            return isinstance(value, dict) and all(
                is_of(value.get(name), wanted) for name, wanted in kind.items()
            )
        return isinstance(value, kind) and not isinstance(value, bool)

    numbers = [(int, float)]
    for name, kind, optional in (
        ("tool", str, False),
        ("model", str, False),
        ("weights", str, False),
        ("input", {"mean": numbers, "std": numbers}, True),
        ("labels", [str], True),
        ("layers", [{"name": str, "config": dict}], False),
        ("skipped", [{"name": str, "reason": str}], False),
    ):
        value = config.get(name)
        if not ((optional and value is None) or is_of(value, kind)):
            raise MetadataError(f"{CONFIG_NAME} is damaged: field {name!r}")
