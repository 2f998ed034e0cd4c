"""Runs a model on from one of its quantizers, without what lies before it.

The model is cut behind every quantizer. What lies between two cuts is one graph, from
the tensors that are alive at the first to those at the second; together they are traced
as often as the model is, once.
"""

from functools import partial
from typing import Any

import keras
import numpy as np

from dqa_keras.graph import calls, hooks
from dqa_keras.layers import Quantizer

# Values of a quantizer's activation that are computed at once. TensorFlow's
# convolutions slow down where more (caches) or fewer (calls) are.
_VALUES = 2**22

# The tensors that are alive at a cut, what its quantizer gives last.
State = list[Any]


class Resuming:
    """A model's activations at its quantizers, and what its outputs become of others.

    Args:
        model: Functional or Sequential model; its quantizers pass everything.
        images: A batch of N inputs.
    """

    def __init__(self, model: keras.Model, images: Any) -> None:
        leaves = keras.tree.flatten(images)
        seen = calls.flattened(model, [(None, *leaf.shape[1:]) for leaf in leaves])
        cuts = [
            number
            for number, call in enumerate(seen.calls)
            if isinstance(call.operation, Quantizer)
        ]
        self._layers = [seen.calls[cut].operation for cut in cuts]
        sizes = [int(np.prod(seen.calls[cut].outputs[0].shape[1:])) for cut in cuts]
        # The largest activation from each cut on.
        self._largest = np.maximum.accumulate(sizes[::-1])[::-1]
        alive = _alive(seen, cuts)
        ends = [0, *(cut + 1 for cut in cuts), len(seen.calls)]
        self._runs = [
            hooks.compiled(partial(_run_part, seen.calls[first:end], before, after))
            for first, end, before, after in zip(
                ends[:-1], ends[1:], alive[:-1], alive[1:], strict=True
            )
        ]
        rows = self._rows(0) if cuts else len(leaves[0])
        self._images = [
            [leaf[first : first + rows] for leaf in leaves]
            for first in range(0, len(leaves[0]), rows)
        ]
        self._at = -1
        self._states: list[State] = []

    def _rows(self, cut: int) -> int:
        return max(1, _VALUES // int(self._largest[cut]))

    def knows(self, layer: Quantizer) -> bool:
        """Whether a layer is called once: a shared one has several successors."""
        return sum(layer is other for other in self._layers) == 1

    def copies(self) -> int:
        """How many activations `outputs` takes at once."""
        return max(1, self._rows(self._at) // len(self._images[0][0]))

    def go_to(self, layer: Quantizer) -> list[Any]:
        """What reaches a layer, in groups of images: each (n, ..., C)."""
        wanted = next(i for i, other in enumerate(self._layers) if other is layer)
        if self._at < 0 or wanted < self._at:
            self._states = [self._runs[0](images) for images in self._images]
            self._at = 0
        for run in self._runs[self._at + 1 : wanted + 1]:
            self._states = [run(state) for state in self._states]
        self._at = wanted
        return [state[-1] for state in self._states]

    def outputs(self, group: int, activation: Any) -> list[Any]:
        """The model's outputs if the layer that it went to gave something else.

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
        for run in self._runs[self._at + 1 :]:
            state = run(state)
        return state


def _alive(seen: calls.Graph, cuts: list[int]) -> list[list[Any]]:
    """Tensors at the inputs, at each cut and at the outputs that are read behind it."""
    found = [seen.inputs]
    for cut in cuts:
        made = {id(x) for x in seen.inputs}
        made.update(id(x) for call in seen.calls[:cut] for x in call.outputs)
        read = [x for call in seen.calls[cut + 1 :] for x in call.inputs]
        alive = {id(x): x for x in (*read, *seen.outputs) if id(x) in made}
        found.append([*alive.values(), *seen.calls[cut].outputs])
    return [*found, seen.outputs]


def _run_part(
    calls: list[calls.Call], before: list[Any], after: list[Any], state: State
) -> State:
    """Makes some calls in inference mode; quantizers pass everything."""
    known = dict(zip(map(id, before), state, strict=True))
    for call in calls:
        passes = isinstance(call.operation, Quantizer)
        made = [known[id(x)] for x in call.inputs] if passes else call.run(known)
        known.update(zip(map(id, call.outputs), made, strict=True))
    return [known[id(x)] for x in after]
