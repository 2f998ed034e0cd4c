"""Runs an exported file in LiteRT and compares it with Keras."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from dqa_keras.export import flatbuffer
from numpy.typing import NDArray

from dqa_keras.layers import Quantizer, quantizer_layers


class VerificationError(RuntimeError):
    """An exported file is not what the Keras model computes."""


def check_ops(model: Any) -> None:
    """Raises VerificationError if an unpacked model holds ops that are not built in."""
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


class _Site(NamedTuple):
    """A quantizer in a `.tflite`: its layer, the tensor in front, the one of codes."""

    layer: Quantizer
    inputs: int
    codes: int
    # Whether the multiplication by 1 / scale went into the layer in front, so that
    # `inputs` are scaled already.
    folded: bool


def _sites(graph: flatbuffer.Graph, layers: list[Quantizer]) -> list[_Site]:
    """Finds every quantizer by the name of its rounding."""
    sites = []
    for op in graph.ops:
        match = _SCOPE.search(graph.name(op.outputs[0]))
        if graph.kind(op) != "ROUND" or not match:
            continue
        tensor = int(op.inputs[0])
        producer = graph.producer(tensor)
        while graph.kind(producer) in ("MINIMUM", "MAXIMUM"):
            tensor = graph.variable_input(producer)
            producer = graph.producer(tensor)
        scaled = graph.kind(producer) == "MUL"
        if scaled:
            tensor = graph.variable_input(producer)
        layer = layers[int(match.group(1))]
        sites.append(_Site(layer, tensor, int(op.outputs[0]), not scaled))
    missing = {layer.name for layer in layers} - {site.layer.name for site in sites}
    if missing:
        raise VerificationError(
            f"quantizer {sorted(missing)[0]!r} is not to be found in the export: "
            "the converter changed its ops"
        )
    return sites


def _expected(site: _Site, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keras' codes for what LiteRT had in front of a quantizer."""
    if site.folded:
        q_min, q_max = (np.asarray(bound) for bound in site.layer.code_range())
        return np.rint(np.clip(values, q_min, q_max))
    # NoisyQuant adds its noise in front of the tensor found here.
    return np.asarray(Quantizer.codes(site.layer, values), np.float32)


def _images(samples: Any) -> Iterator[Any]:
    """The samples as batches of one."""
    count = len(keras.tree.flatten(samples)[0])
    for index in range(count):
        yield keras.tree.map_structure(
            lambda array, index=index: np.asarray(array[index : index + 1]), samples
        )


class Runner:
    """A `.tflite` in LiteRT, called like a Keras model with batches of one.

    Args:
        data: Bytes of the file.
        names: Names of the inputs, in the order that `call` gets the arrays.
        threads: Integer. Threads to run on. Defaults to `1`.
    """

    def __init__(self, data: bytes, names: list[str], threads: int = 1) -> None:
        self._interpreter = Interpreter(model_content=data, num_threads=threads)
        details = {
            detail["name"]: detail for detail in self._interpreter.get_input_details()
        }
        signature = self._interpreter.get_signature_runner().get_input_details()
        self._inputs = [
            details[(signature.get(name) or next(iter(signature.values())))["name"]]
            for name in names
        ]
        self._ready: list[tuple[int, ...]] | None = None

    def __call__(self, x: Any) -> list[NDArray]:
        """Outputs of the model, flat."""
        arrays = keras.tree.flatten(x)
        shapes = [np.shape(array) for array in arrays]
        if shapes != self._ready:
            for detail, shape in zip(self._inputs, shapes, strict=True):
                if tuple(detail["shape"]) != shape:
                    self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._ready = shapes
        for detail, array in zip(self._inputs, arrays, strict=True):
            value = np.asarray(array, detail["dtype"])
            self._interpreter.set_tensor(detail["index"], value)
        self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(detail["index"])
            for detail in self._interpreter.get_output_details()
        ]


def input_names(model: keras.Model) -> list[str]:
    """Names of a Keras model's inputs, in the order it is called with them."""
    return [tensor.name for tensor in model.inputs]


def check_codes(data: bytes, model: keras.Model, samples: Any) -> int:
    """Compares the codes of every quantizer in LiteRT with Keras', on the same inputs.

    A copy of the file whose inner tensors are outputs runs with LiteRT's default
    kernels, XNNPACK included: these are the kernels that users run.

    Returns:
        The number of quantizers compared.

    Raises:
        VerificationError: If a quantizer is missing or one code differs.
    """
    unpacked = flatbuffer.unpack(data)
    graph = flatbuffer.Graph(unpacked)
    sites = _sites(graph, quantizer_layers(model))
    graph.add_outputs(
        [tensor for site in sites for tensor in (site.inputs, site.codes)]
    )
    run = Runner(flatbuffer.pack(unpacked), input_names(model))
    for image in _images(samples):
        probes = run(image)[-2 * len(sites) :]
        for site, values, codes in zip(sites, probes[::2], probes[1::2], strict=True):
            expected = _expected(site, values)
            different = int(np.sum(codes != expected))
            if different:
                raise VerificationError(
                    f"quantizer {site.layer.name!r}: {different} of {codes.size} codes "
                    "differ between LiteRT and Keras on the same input. Please report "
                    "this with the versions of tensorflow and ai-edge-litert."
                )
    return len(sites)


def compare_outputs(
    data: bytes, model: keras.Model, samples: Any
) -> tuple[float, float]:
    """Largest absolute difference of the outputs, and Keras' largest output."""
    run = Runner(data, input_names(model))
    difference = output_range = 0.0
    for image in _images(samples):
        expected = keras.tree.flatten(model(image, training=False))
        for ours, theirs in zip(expected, run(image), strict=True):
            wanted = keras.ops.convert_to_numpy(keras.ops.cast(ours, "float32"))
            difference = max(difference, float(np.max(np.abs(wanted - theirs))))
            output_range = max(output_range, float(np.max(np.abs(wanted))))
    return difference, output_range
