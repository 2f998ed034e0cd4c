"""`TFLITE_METADATA`, by which Task Library and ML Kit run models of images.

They ask a file for the normalization of its input and the labels of its output, in the
FlatBuffer of TensorFlow Lite's metadata_schema.fbs; labels lie in a zip archive behind
the model. `DQA_CONFIG` says the same for this library's own readers.
"""

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.conversion import input_names, output_names

NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"

# Values of the schema's enumerations and unions.
_NORMALIZATION_OPTIONS = 1
_FEATURE, _IMAGE = 1, 2
_AXIS_LABELS = 2
_COLOR_SPACES = {3: 1, 1: 2}  # RGB and grayscale, by channels


def takes_an_image(model: keras.Model) -> bool:
    """Whether a model's only input is one that Task Library can make of a bitmap."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    return len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] in _COLOR_SPACES


def describe(
    model: keras.Model,
    normalization: tuple[NDArray[np.float32], NDArray[np.float32]],
    labels: Sequence[str],
) -> bytes:
    """The metadata buffer of a model of one image.

    Args:
        model: Keras model that `takes_an_image`.
        normalization: Means and standard deviations, float32 (1,) or (channels,), of
            pixels 0..255.
        labels: Class labels, as many as an output has channels.

    Returns:
        Bytes of the FlatBuffer `ModelMetadata`.
    """
    writer = _Writer()
    (image,), (name,) = model.inputs, input_names(model)
    mean, std = normalization
    ends = (
        (np.zeros(1, np.float32) - mean) / std,
        (np.full(1, 255, np.float32) - mean) / std,
    )
    inputs = [
        writer.tensor(
            name,
            writer.image(_COLOR_SPACES[image.shape[3]]),
            units=[writer.normalization(mean, std)],
            stats=writer.table(max=writer.floats(ends[1]), min=writer.floats(ends[0])),
        )
    ]
    outputs = [
        writer.tensor(
            name,
            writer.feature(),
            files=[writer.labels()] if tensor.shape[-1] == len(labels) else [],
        )
        for name, tensor in zip(output_names(model), model.outputs, strict=True)
    ]
    return writer.finish(model.name, inputs, outputs)


def with_labels(data: bytes, labels: Sequence[str]) -> bytes:
    """A `.tflite` with its labels in an archive of uncompressed files behind it."""
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:
        # Without a date, so that the same model gives the same bytes.
        text = "".join(f"{label}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), text.encode())
    return whole.getvalue()


class _Writer:
    """Tables of metadata_schema.fbs, field by field in the schema's order."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def table(self, **fields: int | None) -> int:
        """A table of offsets, in the order given; None leaves a field out."""
        return self._table([("offset", offset) for offset in fields.values()])

    def _table(self, fields: Sequence[tuple[str, int | None]]) -> int:
        self._builder.StartObject(len(fields))
        for number, (kind, value) in enumerate(fields):
            if value is None:
                continue
            if kind == "byte":
                self._builder.PrependUint8Slot(number, value, 0)
            else:
                self._builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return self._builder.EndObject()

    def text(self, value: str) -> int:
        """A string."""
        return self._builder.CreateString(value)

    def floats(self, values: NDArray[np.float32]) -> int:
        """A vector of float32."""
        return self._builder.CreateNumpyVector(np.asarray(values, np.float32))

    def tables(self, offsets: Sequence[int]) -> int | None:
        """A vector of tables; None if there are none."""
        if not offsets:
            return None
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def image(self, color_space: int) -> int:
        """`Content` that is an image."""
        return self._content(_IMAGE, self._table([("byte", color_space)]))

    def feature(self) -> int:
        """`Content` that is numbers."""
        return self._content(_FEATURE, self._table([]))

    def _content(self, kind: int, properties: int) -> int:
        return self._table([("byte", kind), ("offset", properties)])

    def normalization(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> int:
        """`ProcessUnit` that normalizes."""
        options = self.table(mean=self.floats(mean), std=self.floats(std))
        return self._table([("byte", _NORMALIZATION_OPTIONS), ("offset", options)])

    def labels(self) -> int:
        """`AssociatedFile` with a label for each channel."""
        name = self.text(LABELS_FILE)
        description = self.text("A label for each channel of the output.")
        return self._table(
            [("offset", name), ("offset", description), ("byte", _AXIS_LABELS)]
        )

    def tensor(
        self,
        name: str,
        content: int,
        units: Sequence[int] = (),
        stats: int | None = None,
        files: Sequence[int] = (),
    ) -> int:
        """`TensorMetadata`."""
        return self.table(
            name=self.text(name),
            description=None,
            dimension_names=None,
            content=content,
            process_units=self.tables(units),
            stats=stats,
            associated_files=self.tables(files),
        )

    def finish(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """`ModelMetadata` of one graph, as bytes."""
        graph = self.table(
            name=None,
            description=None,
            input_tensor_metadata=self.tables(inputs),
            output_tensor_metadata=self.tables(outputs),
        )
        model = self.table(
            name=self.text(name),
            description=None,
            version=None,
            subgraph_metadata=self.tables([graph]),
            author=None,
            license=None,
            associated_files=None,
            min_parser_version=self.text(_PARSER_VERSION),
        )
        self._builder.Finish(model, _IDENTIFIER)
        return bytes(self._builder.Output())
