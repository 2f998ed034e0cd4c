"""Only `backend/` asks which Keras backend runs."""

from pathlib import Path

import dqa_keras
from dqa_keras import export
from dqa_keras.backend import running

ROOMS = [Path(package.__file__).resolve().parent for package in (dqa_keras, export)]


def test_the_name_is_keras_own():
    assert running.name() == "tensorflow"
    assert running.runs_on("tensorflow")
    assert not running.runs_on("jax")


def test_nobody_else_asks_which_backend_runs():
    asking = {
        path.relative_to(room.parent).as_posix()
        for room in ROOMS
        for path in room.rglob("*.py")
        if "backend.backend()" in path.read_text()
    }
    assert asking == {"dqa_keras/backend/running.py"}
