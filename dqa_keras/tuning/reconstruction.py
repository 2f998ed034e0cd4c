r"""Brings each layer's result near the unquantized model's again, without labels.

Layers behind a quantizer compute with values that are not quite what they were trained
for. From a few hundred images, front to back, each linear layer gets the weights and
the bias that make its result on *quantized* inputs come nearest to the unquantized
model's result:

$$\min_{W, b} \sum_i \| y_i - W \hat x_i - b \|^2 + \lambda \, \overline{\hat x^2} \,
  \| W - W_0 \|^2$$

with $\hat x_i$ what reaches the layer in the quantized model, all layers before it
reconstructed, and $y_i$ what the layer gives in the unquantized one. So a layer undoes
what clipping takes, and leans less on inputs that rounding makes noisy where others say
the same. The minimum is solved for, not searched; $\lambda$ is the one of the smallest
error on every fourth image, which the others are fitted without, and a layer that gains
nothing there stays as it is. Ranges are left alone, so codes stay in theirs.

Example:
>>> import keras, numpy as np
>>> import dqa_keras as dqa
>>> model = keras.Sequential([
...     keras.Input((16,)), keras.layers.Dense(64, activation="relu"),
...     keras.layers.Dense(2, name="head"),
... ])
>>> x = np.random.default_rng(0).random((512, 16), "float32")
>>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=2))
>>> dqa.calibrate(quantized, x, verbose=0)
>>> dqa.reconstruct(quantized, model, x, verbose=0)
['head']

Reference:
    - [Channel pruning](https://arxiv.org/abs/1707.06168), section 3.2: the same
      least squares, for channels that are gone
    - [BRECQ](https://arxiv.org/abs/2102.05426): reconstruction, block by block
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras import files
from dqa_keras.calibration.checkpoint import digest
from dqa_keras.graph import calls
from dqa_keras.tuning import activation_files, equations, model_pair
from dqa_keras.tuning.activation_files import State
from dqa_keras.tuning.bias_correction import linear
from dqa_keras.tuning.least_squares import Moments

# Equations for each unknown of an output; more change next to nothing.
_EQUATIONS = 32
_LEAST_EQUATIONS = 8192

# What is tried, least change last.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf)

# Every so many images one is held out, to choose the ridge by.
_HELD_OUT = 4

# Linear layers between two places where activations are kept on disk.
_BLOCK = 3


def reconstruct(
    quantized: keras.Model,
    model: keras.Model,
    data: Any,
    *,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> list[str]:
    """Fits weights and biases so that each layer gives what it gave unquantized.

    It takes about as long as eight runs of `predict` over the data and keeps
    activations on disk, so that memory does not grow with the number of images.

    Args:
        quantized: What `quantize_model` made of `model`, calibrated; its weights are
            changed in place.
        model: Functional or Sequential Keras model.
        data: Inputs, as for `calibrate`; labels are not used. A few hundred images are
            enough.
        batch_size: Integer. Images that are computed together. Defaults to `32`.
        seed: Integer. Draws the positions of large activations that are looked at; the
            same seed gives the same weights. Defaults to `0`.
        verbose: Integer. `0` hides the progress bar. Defaults to `1`.
        checkpoint: Path of a file. If it exists, reconstruction goes on from it; it is
            written after every few layers and deleted at the end. Defaults to `None`.

    Returns:
        Names of the layers that have changed. Of `Conv2D`, `DepthwiseConv2D` and
        `Dense`, those that are called more than once stay as they are; so do all other
        kinds.

    Raises:
        ValueError: If a quantizer is not calibrated, the models do not belong
            together, the images differ in shape or are fewer than 8, or the checkpoint
            belongs to another model or other data. The model is then as it was before.
    """
    layers = model_pair.originals(quantized, model, "reconstruction")
    before = quantized.get_weights()
    try:
        with tempfile.TemporaryDirectory() as folder:
            kept = activation_files.Kept(Path(folder))
            images = activation_files.read(model, data, batch_size, 2 * _HELD_OUT, kept)
            work = _Work(quantized, layers, batch_size, seed)
            changed = work.run(kept, images.leaves, verbose, checkpoint)
            model_pair.count_again(quantized, images.batches(batch_size))
    except BaseException:
        quantized.set_weights(before)
        raise
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return changed


class _Block(NamedTuple):
    """Calls `first` to `end`, and the tensors that are alive before and after them."""

    first: int
    end: int
    before: list[Any]
    after: list[Any]


class _Work:
    """Two models side by side, and the layers that are fitted.

    Args:
        quantized: The model that is changed.
        exact: Layers of the unquantized model, by name.
        batch_size: Integer.
        seed: Integer.
    """

    def __init__(
        self, quantized: keras.Model, exact: dict[str, Any], batch_size: int, seed: int
    ) -> None:
        self._model, self._exact = quantized, exact
        self._batch_size, self._seed = batch_size, seed
        self._seen = calls.flatten(quantized)
        self._last = {
            id(x): number
            for number, call in enumerate(self._seen.calls)
            for x in call.inputs
        } | {id(x): len(self._seen.calls) for x in self._seen.outputs}
        names = [call.operation.name for call in self._seen.calls]
        self._fitted = [
            number
            for number, call in enumerate(self._seen.calls)
            if equations.is_solvable(call.operation) and names.count(names[number]) == 1
        ]
        self._blocks = self._cut()

    def run(
        self,
        kept: activation_files.Kept,
        images: State,
        verbose: int,
        checkpoint: str | os.PathLike | None,
    ) -> list[str]:
        """Fits all layers, front to back; names of those that have changed."""
        notes = _Checkpoint(checkpoint, self._model, images, self._seed)
        done, changed = notes.load()
        progress = tqdm(
            total=len(self._fitted),
            desc="reconstruct",
            unit="layer",
            disable=None if verbose else True,
        )
        coded = exact = images
        for block in self._blocks:
            for number in self._fitted:
                if not block.first <= number < block.end:
                    continue
                if number >= done and self._fit(block, number, coded, exact):
                    changed.append(self._seen.calls[number].operation.name)
                progress.update()
            if block.end < len(self._seen.calls):
                coded = kept.keep(self._after(block, coded, {}))
                exact = kept.keep(self._after(block, exact, self._exact))
            if block.end > done:
                notes.save(block.end, changed)
        progress.close()
        return changed

    def _cut(self) -> list[_Block]:
        seen = self._seen
        ends = [*self._fitted[_BLOCK::_BLOCK], len(seen.calls)]
        tensors, alive = {id(x): x for x in seen.inputs}, [seen.inputs]
        for first, end in zip([0, *ends], ends, strict=False):
            for call in seen.calls[first:end]:
                tensors.update((id(x), x) for x in call.outputs)
            read = [x for call in seen.calls[end:] for x in call.inputs]
            wanted = {id(x): x for x in (*read, *seen.outputs) if id(x) in tensors}
            alive.append(list(wanted.values()))
        return [
            _Block(first, end, before, after)
            for first, end, before, after in zip(
                [0, *ends[:-1]], ends, alive[:-1], alive[1:], strict=True
            )
        ]

    def _after(
        self, block: _Block, state: State, exact: dict[str, Any]
    ) -> Iterator[State]:
        for part in activation_files.parts(len(state[0]), self._batch_size):
            known = self._known(block, block.end, state, part, exact)
            yield [ops.convert_to_numpy(known[id(x)]) for x in block.after]

    def _known(
        self,
        block: _Block,
        end: int,
        state: State,
        part: slice,
        exact: dict[str, Any],
    ) -> dict[int, Any]:
        """Tensors of some images before call `end`.

        They are those of the unquantized model if `exact` holds its layers.
        """
        known = {
            id(x): ops.convert_to_tensor(np.asarray(array[part]))
            for x, array in zip(block.before, state, strict=True)
        }
        for number in range(block.first, end):
            call = self._seen.calls[number]
            outputs = (
                model_pair.run_unquantized(call, known, exact)
                if exact
                else call.run(known)
            )
            known.update(zip(map(id, call.outputs), outputs, strict=True))
            for x in call.inputs:
                if self._last[id(x)] == number:
                    known.pop(id(x), None)
        return known

    def _fit(self, block: _Block, number: int, coded: State, exact: State) -> bool:
        """Fits one layer; whether it has changed."""
        call = self._seen.calls[number]
        layer = call.operation
        sink = self._sink(number)
        fit, held = self._moments(block, number, coded, exact)
        weights = equations.grouped(layer, layer.kernel)
        bias = np.zeros((len(weights), 1, weights.shape[2]))
        if getattr(layer, "bias", None) is not None:
            bias = ops.convert_to_numpy(layer.bias).astype(np.float64)
            bias = bias.reshape(len(weights), 1, -1)
        errors = [held.error(weights, bias)]
        centred = sink is not None
        errors += [held.error(*fit.solved(weights, r, centred)) for r in _RIDGES]
        best = int(np.argmin(errors))
        if best == 0 or not np.isfinite(errors[best]):
            return False
        new, moved = (fit + held).solved(weights, _RIDGES[best - 1], centred)
        layer.kernel.assign(equations.ungrouped(layer, new))
        if sink is not None:
            variable, factor = sink
            shift = (moved - bias).reshape(-1)
            variable.assign(ops.convert_to_numpy(variable) + factor * shift)
        return True

    def _moments(
        self, block: _Block, number: int, coded: State, exact: State
    ) -> tuple[Moments, Moments]:
        """Of what reaches the layer and what it should give: fitted and held out."""
        call = self._seen.calls[number]
        layer, original = call.operation, self._exact[call.operation.name]
        images = len(coded[0])
        unknowns = equations.grouped(layer, layer.kernel).shape[1]
        wanted = max(_LEAST_EQUATIONS, _EQUATIONS * unknowns)
        sums: list[list[Moments]] = [[], []]
        for index, part in enumerate(activation_files.parts(images, self._batch_size)):
            (tensor,) = call.inputs
            known = self._known(block, number, coded, part, {})
            x = ops.convert_to_numpy(ops.cast(known[id(tensor)], "float32"))
            known = self._known(block, number, exact, part, self._exact)
            with linear(original):
                (y,) = call.run(known, original)
            y = ops.convert_to_numpy(ops.cast(y, "float32"))
            random = np.random.default_rng((self._seed, number, index))
            x, y = equations.at_some(layer, x, y, -(-wanted // images), random)
            held = np.arange(part.start, part.stop) % _HELD_OUT == _HELD_OUT - 1
            for chosen, moments in zip((~held, held), sums, strict=True):
                if chosen.any():
                    moments.append(
                        Moments.of(*(equations.rows(layer, a[chosen]) for a in (x, y)))
                    )
                    moments[:] = [sum(moments[1:], moments[0])]
        ((fit,), (held_out,)) = sums
        return fit, held_out

    def _sink(self, number: int) -> tuple[Any, NDArray] | None:
        """Where a layer's bias may go, and the factor that it has there."""
        call = self._seen.calls[number]
        if getattr(call.operation, "bias", None) is not None:
            return call.operation.bias, np.ones(1, np.float32)
        (y,) = call.outputs
        readers = [c for c in self._seen.calls if any(x is y for x in c.inputs)]
        if len(readers) != 1 or any(x is y for x in self._seen.outputs):
            return None
        norm = readers[0].operation
        is_norm = isinstance(norm, keras_layers.BatchNormalization)
        if not is_norm or not norm.center or self._called(norm) > 1:
            return None
        variance = ops.convert_to_numpy(norm.moving_variance)
        factor = 1 / np.sqrt(variance + norm.epsilon)
        if norm.scale:
            factor = factor * ops.convert_to_numpy(norm.gamma)
        return norm.beta, factor

    def _called(self, layer: Any) -> int:
        return sum(call.operation is layer for call in self._seen.calls)


class _Checkpoint:
    """A file with the weights that are final, of one model and its images."""

    def __init__(
        self,
        path: str | os.PathLike | None,
        model: keras.Model,
        images: State,
        seed: int,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._model = model
        if self._path:
            start = digest([np.array(seed), *model.get_weights()])
            self._digest = digest(images, start)

    def load(self) -> tuple[int, list[str]]:
        """How many calls are done, and the layers that changed; sets the weights."""
        if self._path is None or not self._path.exists():
            return 0, []
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file}
            belongs = int(arrays["digest"]) == self._digest
            done, changed = int(arrays["done"]), arrays["changed"].tolist()
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(
                f"{self._path} is not a checkpoint of a reconstruction: delete it, or "
                f"name another ({error})"
            ) from error
        if not belongs:
            raise ValueError(
                f"{self._path} belongs to another model, other data or another seed: "
                "delete it, or name another"
            )
        weights = self._model.get_weights()
        self._model.set_weights([arrays[str(i)] for i in range(len(weights))])
        return done, changed

    def save(self, done: int, changed: list[str]) -> None:
        """Writes the file, whole or not at all."""
        if self._path is None:
            return
        arrays = {str(i): w for i, w in enumerate(self._model.get_weights())}
        with files.replacing(self._path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                digest=self._digest,
                done=done,
                changed=np.array(changed, str),
                **arrays,
            )
