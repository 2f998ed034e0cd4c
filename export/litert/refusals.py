"""What TensorFlow's converter refuses, in one sentence instead of pages of MLIR."""

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# `fused["Digamma:", "functional_1/odd/Digamma@..."]`: where an op was called.
_PLACE = re.compile(r"fused\[\"(\w+):\", \"([^\"@]*)@")
_REFUSED = re.compile(r"'(?:tf|tfl)\.(\w+)' op ")
_LISTED = re.compile(r"^(?:TF Select|Custom) ops: (.*)$", re.MULTILINE)
_TYPES = {"f16": "float16", "bf16": "bfloat16", "f64": "float64", "complex": "complex"}


class Refused(ValueError):
    """The converter refuses a model; the message is `explain`'s."""


def culprits(message: str, layer_names: Iterable[str]) -> list[str]:
    """The ops that a converter's message is about, with their layers if known.

    Args:
        message: What the converter raised.
        layer_names: Names of the model's layers.
    """
    places = dict(_PLACE.findall(message))
    refused = dict.fromkeys(_REFUSED.findall(message))
    for line in _LISTED.findall(message):
        refused.update(dict.fromkeys(re.findall(r"\w+", line)))
    known = set(layer_names)
    described = []
    for name in refused:
        layer = _layer(places.get(name, ""), known)
        described.append(name + (f" of layer {layer!r}" if layer else ""))
    return described[:5]


def explain(message: str, layer_names: Iterable[str]) -> str:
    """The ops that a converter's message is about, their layers, and the way out.

    Args:
        message: What the converter raised.
        layer_names: Names of the model's layers.

    Returns:
        One line.
    """
    ops = culprits(message, layer_names)
    if not ops:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        reason = lines[0][:200] if lines else "it does not say why"
        return f"TensorFlow's converter refuses the model: {reason}. {_WAY_OUT}"
    types = [
        long
        for short, long in _TYPES.items()
        if re.search(rf"\b(?:tensor<)?(?:\d+x|\?x)*{short}\b", message)
    ]
    suffix = f" on {' and '.join(types)}" if types else ""
    return f"LiteRT has no built-in op for {', '.join(ops)}{suffix}. {_WAY_OUT}"


_WAY_OUT = "Replace the layer, or leave it out of the exported model."


def _layer(place: str, known: set[str]) -> str | None:
    """The innermost layer in a scope such as `functional_1/odd_1/Digamma`."""
    for part in reversed(place.split("/")):
        # TensorFlow numbers scopes that it has seen before.
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in known:
                return name
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what C++ writes to standard error; drops it if an error is raised."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), 2)
        try:
            yield
        except BaseException:
            told.truncate(0)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            told.seek(0)
            text = told.read()
            if text:
                os.write(2, text)
