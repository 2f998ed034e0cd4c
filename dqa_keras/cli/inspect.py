"""Says what a file holds: the tables of a .tflite, the quantizers of a .keras.

Example:
  dqa inspect m.tflite
  dqa inspect m.tflite --json > tables.json
  dqa inspect m.tflite --plan
  dqa inspect --runtime
"""

import json
from pathlib import Path

import numpy as np
from absl import flags

import dqa_keras as dqa
from dqa_keras.analysis.text import printable, table
from dqa_keras.cli import shared_flags
from dqa_keras.cli.loading import load_keras
from dqa_keras.codec import native
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.export import Metadata, read_metadata
from dqa_keras.export.packed import pack
from dqa_keras.export.plan import encoding


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    flags.DEFINE_bool(
        "json", False, "Print a .tflite's DQA_CONFIG as JSON.", flag_values=values
    )
    flags.DEFINE_bool(
        "plan",
        False,
        "Print what the DQA ops of a packed .tflite do.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "runtime",
        False,
        "Say which codec this installation uses, and why.",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if values.runtime:
        shared_flags.no_arguments(arguments)
        print(native.runtime())
        return
    if len(arguments) != 1:
        raise ValueError(f"inspect takes one file. Received: {len(arguments)}")
    path = arguments[0]
    if path.endswith(".keras"):
        dqa.summary(load_keras(path))
        return
    metadata = read_metadata(path)
    if values.plan:
        plans = pack.read_plans(Path(path).read_bytes())
        if not plans:
            raise ValueError(
                f"{path} has no DQA op: it is a built-in export. Plans are of files "
                "that dqa export --mode packed wrote."
            )
        print("\n\n".join(encoding.describe(plan) for plan, _ in plans))
        return
    if values.json:
        print(json.dumps(metadata.config, indent=1))
    else:
        print(_text(metadata))


def _text(metadata: Metadata) -> str:
    config = metadata.config
    header = "layer,shape,bits,extra,signed,important,scale,codes"
    rows = [tuple(header.split(","))]
    for name, entry in metadata.tables.items():
        low, high = float(np.min(entry.scale)), float(np.max(entry.scale))
        rows.append(
            (
                name,
                " x ".join(str(size or "?") for size in entry.shape),
                str(entry.bits),
                str(entry.extra_bits),
                _signed(entry),
                f"{int(entry.mask.sum())}/{entry.mask.size}",
                f"{low:.3g}" if low == high else f"{low:.3g}..{high:.3g}",
                " ".join(map(str, entry.residual_lengths)),
            )
        )
    labels, normalization = config.get("labels"), config.get("input")
    lines = [
        f"{config['model']}, {config['weights']} weights, by {config['tool']}",
        f"input: {_described(normalization)}",
        f"labels: {', '.join(map(str, labels)) if labels else 'none'}",
        "codes: bits of the Huffman codeword of residual 0, 1, ...",
        "",
    ]
    left_out = [f"not quantized: {s['name']}: {s['reason']}" for s in config["skipped"]]
    return "\n".join([*map(printable, lines), table(rows), *map(printable, left_out)])


def _signed(entry: LayerTable) -> str:
    if entry.sign > 1:
        return f"from {-entry.zero_point}"
    return "yes" if entry.signed else "no"


def _described(normalization: dict[str, list[float]] | None) -> str:
    if normalization is None:
        return "the file does not say whether values must be normalised"
    mean, std = (
        ", ".join(f"{value:g}" for value in normalization[key])
        for key in ("mean", "std")
    )
    return f"(value - mean) / std for each channel, mean {mean}, std {std}"
