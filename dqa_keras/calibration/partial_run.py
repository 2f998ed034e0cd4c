"""Re-runs only the part of the model after a given quantizer.

The model is cut after every quantizer. The calls between two cuts are one graph, from
the tensors that are live at the first cut to those that are live at the second. So each
call of the model is traced once in all.
"""

from functools import partial
from typing import Any

import keras
import numpy as np

from dqa_keras.backend.compile import compiled
from dqa_keras.backend.data_adapter import fixed_batch_size
from dqa_keras.graph import calls
from dqa_keras.layers import Quantizer

# Values of a quantizer's activation that are computed at once. TensorFlow's
# convolutions slow down where more (caches) or fewer (calls) are.
_VALUES = 2**22

# The tensors that are live at a cut; its quantizer's output is last.
State = list[Any]


class PartialRun:
    """A model that runs from one of its quantizers to its outputs.

    Args:
        model: Functional or Sequential model; its quantizers pass everything through.
        images: A batch of N inputs.
    """

    def __init__(self, model: keras.Model, images: Any) -> None:
        leaves = keras.tree.flatten(images)
        self._batch = fixed_batch_size(model)
        shapes = [(self._batch, *leaf.shape[1:]) for leaf in leaves]
        graph = calls.flatten(model, shapes)
        cuts = [
            number
            for number, call in enumerate(graph.calls)
            if isinstance(call.operation, Quantizer)
        ]
        self._layers = [graph.calls[cut].operation for cut in cuts]
        sizes = [int(np.prod(graph.calls[cut].outputs[0].shape[1:])) for cut in cuts]
        # The largest activation from each cut on.
        self._largest = np.maximum.accumulate(sizes[::-1])[::-1]
        live = _live_tensors(graph, cuts)
        ends = [0, *(cut + 1 for cut in cuts), len(graph.calls)]
        self._parts = [
            compiled(partial(_run_part, graph.calls[first:end], before, after))
            for first, end, before, after in zip(
                ends[:-1], ends[1:], live[:-1], live[1:], strict=True
            )
        ]
        rows = self._batch or (self._rows(0) if cuts else len(leaves[0]))
        self._images = [
            [leaf[first : first + rows] for leaf in leaves]
            for first in range(0, len(leaves[0]), rows)
        ]
        self._at = -1
        self._states: list[State] = []

    def _rows(self, cut: int) -> int:
        return max(1, _VALUES // int(self._largest[cut]))

    def can_start_at(self, layer: Quantizer) -> bool:
        """Whether a layer is called once: a shared one has several successors."""
        return sum(layer is other for other in self._layers) == 1

    def copies(self) -> int:
        """How many activations `outputs` takes at once."""
        if self._batch:
            return 1
        return max(1, self._rows(self._at) // len(self._images[0][0]))

    def start_at(self, layer: Quantizer) -> list[Any]:
        """Moves to a layer.

        Args:
            layer: `Quantizer` that `can_start_at` takes.

        Returns:
            The layer's inputs: a tensor (n, ..., C) for each group of n images.
        """
        target = next(i for i, other in enumerate(self._layers) if other is layer)
        if self._at < 0 or target < self._at:
            self._states = [self._parts[0](images) for images in self._images]
            self._at = 0
        for part in self._parts[self._at + 1 : target + 1]:
            self._states = [part(state) for state in self._states]
        self._at = target
        return [state[-1] for state in self._states]

    def outputs(self, group: int, activation: Any) -> list[Any]:
        """The model's outputs if the layer that it started at gives `activation`.

        Args:
            group: Integer. The group of n images.
            activation: (k n, ..., C): k activations of the group, one after another.

        Returns:
            Flat list of outputs, (k n, ...).
        """
        others = self._states[group][:-1]
        copies = activation.shape[0] // len(self._images[group][0])
        if copies > 1:
            others = [keras.ops.concatenate([x] * copies) for x in others]
        state = [*others, activation]
        for part in self._parts[self._at + 1 :]:
            state = part(state)
        return state


def _live_tensors(graph: calls.Graph, cuts: list[int]) -> list[list[Any]]:
    """Inputs, the tensors at each cut that are read after it, and outputs."""
    live = [graph.inputs]
    for cut in cuts:
        computed = {id(x) for x in graph.inputs}
        computed.update(id(x) for call in graph.calls[:cut] for x in call.outputs)
        read = [x for call in graph.calls[cut + 1 :] for x in call.inputs]
        kept = {id(x): x for x in (*read, *graph.outputs) if id(x) in computed}
        live.append([*kept.values(), *graph.calls[cut].outputs])
    return [*live, graph.outputs]


def _run_part(
    calls: list[calls.Call], before: list[Any], after: list[Any], state: State
) -> State:
    """Makes some calls in inference mode; quantizers pass everything through."""
    values = dict(zip(map(id, before), state, strict=True))
    for call in calls:
        if isinstance(call.operation, Quantizer):
            outputs = [values[id(x)] for x in call.inputs]
        else:
            outputs = call.run(values)
        values.update(zip(map(id, call.outputs), outputs, strict=True))
    return [values[id(x)] for x in after]
