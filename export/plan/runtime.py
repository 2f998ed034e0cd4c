"""The compiled runtime, called from Python."""

import ctypes
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Instruction sets, as in codec.h; all give the same bits.
ISAS = {
    "auto": 0,
    "scalar": 1,
    "avx2": 2,
    "neon": 3,
    "avx-vnni": 4,
    "avx512-vnni": 5,
    "neon-dot": 6,
    "neon-i8mm": 7,
}


class RuntimeMissingError(RuntimeError):
    """The compiled runtime was not built."""


class RuntimeFailure(RuntimeError):
    """The runtime refused a plan or an input."""


class _Error(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 192),)


_OBSERVER = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


def library_path() -> str:
    """Path of the shared library that holds runtime and delegate.

    Raises:
        RuntimeMissingError: If it was not built.
    """
    spec = importlib.util.find_spec("dqa_keras._delegate")
    if spec is None or spec.origin is None:
        raise RuntimeMissingError(
            "packed models need the compiled runtime, which was not built because no "
            "C++17 compiler was found. Install one (Debian: apt-get install g++; "
            "macOS: xcode-select --install) and reinstall: "
            "pip install --force-reinstall --no-deps dqa_keras, or in a checkout: "
            "make native"
        )
    return spec.origin


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(library_path())
    library.dqa_runtime_arena.restype = ctypes.c_size_t
    library.dqa_runtime_output_size.restype = ctypes.c_size_t
    library.dqa_runtime_input_size.restype = ctypes.c_size_t
    library.dqa_runtime_spilled.restype = ctypes.c_size_t
    library.dqa_runtime_op_name.restype = ctypes.c_char_p
    return library


def machine_isas() -> list[str]:
    """The instruction sets that the runtime can use here, `"scalar"` first.

    Raises:
        RuntimeMissingError: If the runtime was not built.
    """
    library = _load()
    return [
        name
        for name, number in ISAS.items()
        if name != "auto" and library.dqa_runtime_has_isa(number)
    ]


def op_names() -> list[str]:
    """The names of the runtime's op codes, from code 0 on.

    Raises:
        RuntimeMissingError: If the runtime was not built.
    """
    name_of = _load().dqa_runtime_op_name
    return [
        name.decode() for name in iter(map(name_of, itertools.count()).__next__, None)
    ]


class NativeRuntime:
    """A plan in the compiled runtime, for tests and benchmarks.

    Args:
        plan: Bytes of a plan.
        constants: Bytes of its weights and arrays.
        isa: String. One of `ISAS`. Defaults to `"auto"`: the fastest that this machine
            has.
        threads: Integer. Threads of a run, 1 to 64; results do not depend on it.
            Defaults to `1`.
        tables: Bytes of the model's metadata `DQA_RESIDUAL`; plans with coded stores
            need it. Defaults to none.

    Raises:
        RuntimeMissingError: If the runtime was not built.
        RuntimeFailure: If it refuses the plan.
    """

    def __init__(
        self,
        plan: bytes,
        constants: bytes,
        isa: str = "auto",
        threads: int = 1,
        tables: bytes = b"",
    ) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._constants = _aligned(len(constants))
        self._constants[: len(constants)] = np.frombuffer(constants, np.uint8)
        error = _Error()
        status = self._library.dqa_runtime_create(
            plan,
            ctypes.c_size_t(len(plan)),
            ctypes.c_void_p(self._constants.ctypes.data),
            ctypes.c_size_t(len(constants)),
            tables or None,
            ctypes.c_size_t(len(tables)),
            ISAS[isa],
            ctypes.c_uint32(threads),
            ctypes.byref(self._handle),
            ctypes.byref(error),
        )
        self._check(status, error)
        self._arena = _aligned(int(self._library.dqa_runtime_arena(self._handle)))

    def _check(self, status: int, error: _Error) -> None:
        if status:
            raise RuntimeFailure(error.message.decode(errors="replace"))

    def __call__(self, inputs: Sequence[NDArray]) -> list[NDArray]:
        """Runs the plan: flat float32 or uint8 outputs."""
        types = [
            np.uint8
            if self._library.dqa_runtime_input_type(self._handle, number)
            else np.float32
            for number in range(len(self.input_sizes))
        ]
        arrays = [
            np.ascontiguousarray(x, dtype).reshape(-1)
            for x, dtype in zip(inputs, types, strict=True)
        ]
        outputs: list[NDArray] = []
        while size := self._library.dqa_runtime_output_size(self._handle, len(outputs)):
            is_bytes = self._library.dqa_runtime_output_type(self._handle, len(outputs))
            outputs.append(np.zeros(size, np.uint8 if is_bytes else np.float32))
        for number, array in enumerate(arrays):
            wanted = self._library.dqa_runtime_input_size(self._handle, number)
            if array.size != wanted:
                raise ValueError(
                    f"input {number} must have {wanted} values. Received: {array.size}"
                )
        error = _Error()
        status = self._library.dqa_runtime_run(
            self._handle,
            _pointers(arrays),
            _pointers(outputs),
            ctypes.c_void_p(self._arena.ctypes.data),
            ctypes.byref(error),
        )
        self._check(status, error)
        return outputs

    @property
    def input_sizes(self) -> list[int]:
        """Values of each input."""
        sizes: list[int] = []
        while size := self._library.dqa_runtime_input_size(self._handle, len(sizes)):
            sizes.append(size)
        return sizes

    @property
    def arena_bytes(self) -> int:
        """Memory of a run besides inputs, outputs and weights."""
        return self._arena.size

    @property
    def spilled_bytes(self) -> int:
        """Bytes of coded rows that found no room in the arena, in the last run."""
        return int(self._library.dqa_runtime_spilled(self._handle))

    def observe(self, seen: Callable[[int, int, NDArray], Any], plan: Any) -> None:
        """Calls `seen(op, row, codes)` for each row of codes that an op makes."""

        def forward(_: Any, op: int, row: int, codes: int, pixel_bytes: int) -> None:
            buffer = plan.buffers[plan.ops[op].output]
            raw = ctypes.string_at(codes, buffer.width * pixel_bytes)
            dtype = np.int16 if buffer.type == 1 else np.uint8
            pixels = np.frombuffer(raw, dtype).reshape(buffer.width, -1)
            seen(op, row, pixels[:, : buffer.channels].copy())

        self._observer = _OBSERVER(forward)
        self._library.dqa_runtime_observe(self._handle, self._observer, None)

    def profile(self) -> NDArray[np.float64]:
        """An array of seconds to which runs add from now on.

        One number for each `OpCode`, summed over threads. The last number is the part
        of the convolutions' seconds in which sums became codes.
        """
        self._seconds = np.zeros(len(op_names()) + 1)
        self._library.dqa_runtime_profile(
            self._handle, ctypes.c_void_p(self._seconds.ctypes.data)
        )
        return self._seconds

    def __del__(self) -> None:
        """Frees the runtime."""
        if getattr(self, "_handle", None):
            self._library.dqa_runtime_destroy(self._handle)


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeros that begin at a multiple of 64 bytes."""
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


def _pointers(arrays: Sequence[NDArray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
