r"""A calibration's progress in a file, from which it can resume.

A file holds statistics of the first images of a stream, and the CRC-32 of those images.
On resume, images already seen are read again to verify their CRC, not recomputed. The
statistics are those of all workers, so any number of workers may resume. After the last
image the file also holds the errors of the trials that were made.

    "DQA checkpoint 1\n"
    CRC-32 of all that follows, uint32, little-endian
    an .npz of plain arrays
"""

import dataclasses
import os
import struct
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras import files
from dqa_keras.backend import running
from dqa_keras.calibration.observers import Observer
from dqa_keras.layers import quantizer_layers

_MAGIC = b"DQA checkpoint 1\n"
_CRC = struct.Struct("<I")
_CHUNK = 2**20
_ERRORS = "errors."


@dataclasses.dataclass
class Progress:
    """What calibration has seen so far.

    Args:
        images: Integer. How many images of the stream.
        digest: Integer. CRC-32 of those images, as `digest` gives it.
        observers: Dictionary from quantizer name to `Observer`.
        errors: Dictionary from a number that stands for some trials, their images and
            quantizer, to their errors, float64 (K,); NaN where a trial is missing.
    """

    images: int = 0
    digest: int = 0
    observers: dict[str, Observer] = dataclasses.field(default_factory=dict)
    errors: dict[int, NDArray[np.float64]] = dataclasses.field(default_factory=dict)


def digest(arrays: Iterable[NDArray], start: int = 0) -> int:
    """CRC-32 of the types, shapes and contents of arrays, continued from `start`."""
    for array in arrays:
        start = zlib.crc32(f"{array.dtype}{array.shape}".encode(), start)
        # As bytes: bfloat16 is no dtype that Python's buffers know.
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start = zlib.crc32(flat.data, start)
    return start


def model_digest(model: keras.Model, batch_size: int, loss: str | None) -> int:
    """CRC-32 of what statistics depend on, except the data.

    The state of the quantizers does not change their inputs and is left out.
    """
    layers = quantizer_layers(model)
    own = {id(weight) for layer in layers for weight in layer.weights}
    start = zlib.crc32(repr((running.name(), batch_size, loss)).encode())
    for layer in layers:
        start = zlib.crc32(
            f"{layer.activation_shape}{layer.compute_dtype}".encode(), start
        )
    others = (weight for weight in model.weights if id(weight) not in own)
    return digest((keras.ops.convert_to_numpy(weight) for weight in others), start)


class Checkpoint:
    """A file that keeps the progress of one calibration.

    Args:
        path: Path of the file, or None to keep nothing.
        model: Keras model that is calibrated.
        batch_size: Integer. Images that are computed together.
        loss: Which loss sensitivities belong to, or None.
    """

    # Time between two checkpoints: a crash loses at most this much work.
    seconds = 20.0

    def __init__(
        self,
        path: str | os.PathLike | None,
        model: keras.Model,
        batch_size: int,
        loss: str | None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.model = model_digest(model, batch_size, loss)
        self._names = [layer.name for layer in quantizer_layers(model)]
        self._saved = time.monotonic()

    def load(self) -> Progress:
        """The progress in the file; no progress where there is no file.

        Raises:
            ValueError: If the file is damaged, of another kind, or belongs to another
                model or batch size.
        """
        if self.path is None or not self.path.exists():
            return Progress()
        try:
            with self.path.open("rb") as file:
                self._check(file)
                with np.load(file, allow_pickle=False) as arrays:
                    return self._progress(arrays)
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {error.strerror}") from error

    def _check(self, file: Any) -> None:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(
                f"{self.path} is not a checkpoint of this version of dqa_keras. "
                "Name another file, or delete it to start over."
            )
        expected = file.read(_CRC.size)
        start = file.tell()
        crc = 0
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
        if expected != _CRC.pack(crc):
            raise ValueError(
                f"the checkpoint {self.path} is damaged: its CRC-32 is {crc:08x}, "
                f"not the one it names. Delete it to start over."
            )
        file.seek(start)

    def _progress(self, arrays: Any) -> Progress:
        if int(arrays["model"]) != self.model:
            raise ValueError(
                f"the checkpoint {self.path} belongs to another model, other "
                "weights, another batch_size or another kind of ranking. Name another "
                "file, or delete it to start over."
            )
        progress = Progress(int(arrays["images"]), int(arrays["digest"]))
        for number, name in enumerate(self._names):
            prefix = f"{number}."
            own = {
                key.removeprefix(prefix): arrays[key]
                for key in arrays.files
                if key.startswith(prefix)
            }
            if own:
                progress.observers[name] = Observer.from_arrays(own)
        for key in arrays.files:
            if key.startswith(_ERRORS):
                progress.errors[int(key.removeprefix(_ERRORS))] = arrays[key]
        return progress

    def save(self, progress: Progress) -> None:
        """Writes the file atomically."""
        if self.path is None or not progress.images:
            return
        arrays: dict[str, Any] = {
            f"{number}.{key}": array
            for number, name in enumerate(self._names)
            if name in progress.observers
            for key, array in progress.observers[name].arrays().items()
        }
        for trials, errors in progress.errors.items():
            arrays[f"{_ERRORS}{trials}"] = errors
        with files.replacing(self.path) as temporary, temporary.open("wb+") as file:
            file.write(_MAGIC + bytes(_CRC.size))
            np.savez(
                file,
                model=np.uint32(self.model),
                images=np.int64(progress.images),
                digest=np.uint32(progress.digest),
                **arrays,
            )
            file.seek(len(_MAGIC) + _CRC.size)
            crc = 0
            while chunk := file.read(_CHUNK):
                crc = zlib.crc32(chunk, crc)
            file.seek(len(_MAGIC))
            file.write(_CRC.pack(crc))
        self._saved = time.monotonic()

    def save_if_due(self, progress: Progress) -> None:
        """Writes the file if the last time was `seconds` ago."""
        if time.monotonic() - self._saved >= self.seconds:
            self.save(progress)

    def remove(self) -> None:
        """Deletes the file: the calibration is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
