"""Which Keras backend runs.

>>> from dqa_keras.backend import running
>>> running.runs_on(running.name())
True
"""

import keras


def name() -> str:
    """`"tensorflow"`, `"jax"`, `"torch"` or another backend of Keras."""
    return keras.backend.backend()


def runs_on(backend: str) -> bool:
    """Whether that backend runs."""
    return name() == backend
