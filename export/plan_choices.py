"""What memory and time a packed export of a Keras model can take."""

from typing import Any

import keras

from dqa_keras.export.litert import flatbuffer, metadata
from dqa_keras.export.litert.conversion import convert
from dqa_keras.export.packed.pack import programs_of
from dqa_keras.export.plan.choices import choices


def plan_choices(model: keras.Model, samples: Any) -> list[tuple[float, int]]:
    """The plans among which a packed export chooses, for its region that takes most.

    Args:
        model: Keras model with calibrated quantizers and one size of input.
        samples: A batch of inputs, for the ranges of values that no quantizer rounds.

    Returns:
        List of pairs, the fastest plan first: time over that of the fastest, as the
        planner estimates it, and bytes of activation memory. Empty if nothing can be
        packed.

    Raises:
        ValueError: If the model cannot be converted, or leaves a size open.
    """
    parsed = flatbuffer.parse(convert(model, "float32"))
    described = metadata.describe(model, "float32", None, None)
    flatbuffer.attach_metadata(parsed, described)
    found = [
        choices(program)
        for program in programs_of(flatbuffer.serialize(parsed), model, samples)
    ]
    return max(found, key=lambda plans: plans[-1][1], default=[])
