"""Runs an exported file in LiteRT and compares it with Keras."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.interpreter import Runner, images
from dqa_keras.layers import Quantizer, quantizer_layers


class VerificationError(RuntimeError):
    """An exported file is not what the Keras model computes."""


def check_ops(model: Any) -> None:
    """Raises VerificationError if a parsed model holds ops that are not built in."""
    foreign = sorted(set(flatbuffer.op_names(model)) - flatbuffer.BUILTIN)
    if foreign:
        raise VerificationError(
            "the export must hold built-in ops alone. "
            f"Received: {', '.join(foreign)}. Replace the layer that needs "
            "it, or leave it out of the exported model."
        )


def scope(index: int) -> str:
    """Name scope of the ops of quantizer number `index`, to find them again by."""
    return f"quantizer.{index}."


_SCOPE = re.compile(r"(?:^|[/;])quantizer\.(\d+)\.")


def quantizer_number(name: str) -> int | None:
    """The number of the quantizer that a tensor's name belongs to, if any."""
    match = _SCOPE.search(name)
    return int(match.group(1)) if match else None


class Rounding(NamedTuple):
    """Where a quantizer rounds in a `.tflite`.

    Args:
        number: Integer. The quantizer's number.
        inputs: Integer. The tensor that it reads.
        codes: Integer. The tensor of its codes.
        folded: Boolean. Whether the multiplication by 1 / scale went into the op that
            makes `inputs`, so that they are scaled already.
        upper: Float32 array (C,) or `None`. Bound of an activation such as ReLU6 that
            was left to the quantizer: `inputs` are clipped there.
    """

    number: int
    inputs: int
    codes: int
    folded: bool
    upper: NDArray[np.float32] | None


def roundings(graph: flatbuffer.Graph) -> list[Rounding]:
    """Finds quantizers by the names of their roundings, in order."""
    sites = []
    for op in graph.ops:
        number = quantizer_number(graph.name(op.outputs[0]))
        if graph.kind(op) != "ROUND" or number is None:
            continue
        tensor = int(op.inputs[0])
        producer = graph.producer(tensor)
        while graph.kind(producer) in ("MINIMUM", "MAXIMUM"):
            tensor = graph.variable_input(producer)
            producer = graph.producer(tensor)
        folded = not _is_encoding(graph, producer)
        if not folded:
            tensor = graph.variable_input(producer)
        upper = graph.upper_bound(tensor)
        sites.append(Rounding(number, tensor, int(op.outputs[0]), folded, upper))
    return sites


def _is_encoding(graph: flatbuffer.Graph, op: Any) -> bool:
    """Whether an op is a quantizer's product with 1 / scale.

    Once that is folded, another product can stand in its place: the model's own, or
    the one with the scale of a quantizer right before.
    """
    if graph.kind(op) != "MUL" or quantizer_number(graph.name(op.outputs[0])) is None:
        return False
    source = graph.producer(graph.variable_input(op))
    return graph.kind(source) != "ROUND"


class _Site(NamedTuple):
    """A quantizer's layer and where it rounds."""

    layer: Quantizer
    where: Rounding


def _sites(graph: flatbuffer.Graph, layers: list[Quantizer]) -> list[_Site]:
    """Finds every quantizer of a model."""
    sites = [_Site(layers[where.number], where) for where in roundings(graph)]
    exported = {site.layer.name: site.layer for site in sites}
    for layer in layers:
        # Two activations of one tensor calibrate alike, and the converter computes
        # what is alike once.
        if layer.name not in exported and not any(
            _alike(layer, other) for other in exported.values()
        ):
            raise VerificationError(
                f"quantizer {layer.name!r} is not to be found in the export: "
                "the converter changed its ops"
            )
    return sites


def _alike(layer: Quantizer, other: Quantizer) -> bool:
    """Whether two quantizers do the same to the same input."""
    table, noise = layer.table(), layer.offset(layer.table().scale)
    return dataclasses.replace(other.table(), name=layer.name) == table and (
        np.array_equal(other.offset(table.scale), noise)
    )


def _expected(site: _Site, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keras' codes for what LiteRT had in front of a quantizer."""
    if site.where.folded:
        q_min, q_max = (np.asarray(bound) for bound in site.layer.code_range())
        if site.where.upper is not None:
            q_max = np.minimum(q_max, site.where.upper)
        return np.rint(np.clip(values, q_min, q_max))
    # NoisyQuant adds its noise in front of the tensor found here.
    return np.asarray(Quantizer.codes(site.layer, values), np.float32)


def check_codes(data: bytes, model: keras.Model, samples: Any) -> int:
    """Compares the codes of every quantizer in LiteRT with Keras', on the same inputs.

    A copy of the file whose inner tensors are outputs runs with LiteRT's default
    kernels, XNNPACK included: these are the kernels that users run.

    Args:
        data: Bytes of the exported file.
        model: The calibrated Keras model.
        samples: A batch of inputs, in the structure that the model takes.

    Returns:
        The number of quantizers compared. Quantizers that are alike count each, though
        the converter computes them once.

    Raises:
        VerificationError: If a quantizer is missing or one code differs.
    """
    parsed = flatbuffer.parse(data)
    graph = flatbuffer.Graph(parsed)
    layers = quantizer_layers(model)
    sites = _sites(graph, layers)
    graph.add_outputs(
        [tensor for site in sites for tensor in (site.where.inputs, site.where.codes)]
    )
    run = Runner(flatbuffer.serialize(parsed))
    for image in images(samples):
        try:
            probes = run(image)[-2 * len(sites) :]
        except RuntimeError as error:  # what the converter wrote is not sound
            raise VerificationError(
                f"LiteRT cannot run the export: {error} Replace the layer that this op "
                "comes from, or leave it out of the exported model."
            ) from error
        for site, values, codes in zip(sites, probes[::2], probes[1::2], strict=True):
            if np.isnan(values).any():
                raise _not_a_number(f"in front of quantizer {site.layer.name!r}")
            expected = _expected(site, values)
            different = int(np.sum(codes != expected))
            if different:
                raise VerificationError(
                    f"quantizer {site.layer.name!r}: {different} of {codes.size} codes "
                    "differ between LiteRT and Keras on the same input. Please report "
                    "this with the versions of tensorflow and ai-edge-litert."
                )
    merged = len(layers) - len({site.layer.name for site in sites})
    return len(sites) + merged


class OutputComparison(NamedTuple):
    """An exported file's outputs beside Keras'.

    Args:
        difference: Float. The largest absolute difference.
        output_range: Float. Keras' largest absolute output.
        decisions: Integer. Places where one of several values is the largest: one for
            a vector of classes, one a pixel for a map of them.
        agreed: Integer. Those of them where it is the same one in both.
    """

    difference: float
    output_range: float
    decisions: int
    agreed: int


def compare_outputs(
    run: Callable[[Any], Sequence[NDArray]], model: keras.Model, samples: Any
) -> OutputComparison:
    """Compares the outputs of an exported file with Keras'.

    Args:
        run: Function of one input that gives the file's outputs.
        model: The Keras model.
        samples: A batch of inputs, in the structure that the model takes.

    Returns:
        An `OutputComparison`.

    Raises:
        VerificationError: If an output is NaN or infinite where Keras' is finite.
    """
    difference = output_range = 0.0
    decisions = agreed = 0
    for image in images(samples):
        expected = keras.tree.flatten(model(image, training=False))
        for index, (ours, theirs) in enumerate(zip(expected, run(image), strict=True)):
            wanted = keras.ops.convert_to_numpy(keras.ops.cast(ours, "float32"))
            finite = np.isfinite(wanted)
            if not np.isfinite(theirs[finite]).all():
                raise _not_a_number(f"in output {index}")
            gaps, sizes = np.abs(wanted - theirs)[finite], np.abs(wanted[finite])
            difference = max(difference, float(np.max(gaps, initial=0)))
            output_range = max(output_range, float(np.max(sizes, initial=0)))
            if wanted.ndim > 1 and wanted.shape[-1] > 1:
                same = np.argmax(wanted, -1) == np.argmax(theirs, -1)
                decisions += same.size
                agreed += int(np.sum(same))
    return OutputComparison(difference, output_range, decisions, agreed)


def _not_a_number(place: str) -> VerificationError:
    return VerificationError(
        f"LiteRT computes NaN or infinite values {place} on the samples. Its kernels "
        "treat a division by zero and the root of zero in another way than Keras: keep "
        "such values away from zero, as x / (norm(x) + 1e-6) does"
    )
