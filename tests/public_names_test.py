"""No public name or signature changes by accident.

After a change on purpose run this file as a program, and name it in CHANGELOG.md.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import dqa_keras as dqa
from dqa_keras import export, models

GOLDEN = Path(__file__).parent / "golden" / "public_names.txt"
ROOMS = {
    "dqa_keras": (dqa, dqa.__all__),
    "dqa_keras.layers": (dqa.layers, ["DQA", "Direct", "NoisyQuant"]),
    "dqa_keras.models": (models, models.__all__),
    "dqa_keras.export": (export, export.__all__),
}


def signature(value: Callable) -> inspect.Signature:
    """Names and defaults; how annotations print depends on Python and NumPy."""
    signature = inspect.signature(value)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=signature.empty)


def members(name: str, value: object) -> list[str]:
    """A line for a name, and one for each public method of a class of ours."""
    if not callable(value):
        return [f"{name}: {type(value).__name__}"]
    if inspect.isclass(value) and issubclass(value, Exception):
        return [f"{name}({', '.join(base.__name__ for base in value.__bases__)})"]
    lines = [f"{name}{signature(value)}"]
    if not inspect.isclass(value):
        return lines
    for own, method in sorted(vars(value).items()):
        if own.startswith("_"):
            continue
        if isinstance(method, property):
            lines.append(f"{name}.{own}: property")
        elif callable(method) or isinstance(method, classmethod):
            lines.append(f"{name}.{own}{signature(getattr(value, own))}")
    return lines


def described() -> str:
    """Every public name with its signature, a line each."""
    lines = []
    for room, (module, names) in ROOMS.items():
        for name in sorted(names):
            lines += members(f"{room}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_those_of_the_last_release():
    assert described() == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(described())
