"""Runs `dqa` commands in processes that are killed on the way.

    LD_PRELOAD=killer.so python killed.py

TensorFlow is imported once; each line of standard input, a JSON object, is then run by
a process forked from this one. `arguments`: of the command. `folder` and `write`: dies
in so many-th thing done to the files there. `stage`: dies at the call of that function,
`module.function`. A line of JSON tells how it ended: `status`, and `writes` if not.
"""

import ctypes
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from typing import Any

from dqa_keras.cli import main

# Imported once, before forking: the processes find them there.
for name in ("keras", "tensorflow", "dqa_keras.cli.export", "dqa_keras.cli.quantize"):
    importlib.import_module(name)


def dies_at(stage: str) -> Any:
    """A profiler that kills this process when the function is called.

    Raises:
        ValueError: If the module has no function, and none of its classes a method, of
            this name.
    """
    module, _, function = stage.rpartition(".")
    names = vars(importlib.import_module(module))
    classes = [value for value in names.values() if inspect.isclass(value)]
    if not any(hasattr(holder, function) for holder in classes) and (
        not inspect.isfunction(names.get(function))
    ):
        raise ValueError(f"a stage must name a function. Received: {stage}")

    def profile(frame: Any, event: str, _: Any) -> None:
        if (
            event == "call"
            and frame.f_code.co_name == function
            and frame.f_globals.get("__name__") == module
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    return profile


def run(asked: dict[str, Any], told: int) -> None:
    """The command, in this process; its output is told only if it fails."""
    killer = ctypes.CDLL(None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    killer.killer_arm(asked.get("folder", "").encode(), asked.get("write", 0))
    if "stage" in asked:
        sys.setprofile(dies_at(asked["stage"]))
    status = 1
    try:
        main.run(asked["arguments"])
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:
        traceback.print_exc()
    os.write(told, str(killer.killer_seen()).encode())
    os._exit(status)


def serve() -> None:
    """A process for each line."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            run(json.loads(line), writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            writes = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "writes": int(writes or 0)}), flush=True)


if __name__ == "__main__":
    serve()
