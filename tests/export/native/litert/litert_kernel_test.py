"""Packed files in LiteRT 2's CompiledModel, through its C library."""

import ctypes
import re
from pathlib import Path

import ai_edge_litert
import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed
from dqa_keras.export.plan import runtime

_CPU, _HOST_MEMORY, _READ, _WRITE = 1, 1, 0, 1
_P, _S = ctypes.c_void_p, ctypes.c_size_t


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int32), ("layout", _Layout))


class _Api(ctypes.Structure):
    _fields_ = (
        ("LiteRtAddCustomOpKernelOption", _P),
        ("LiteRtGetTensorBufferSize", _P),
        ("LiteRtLockTensorBuffer", _P),
        ("LiteRtUnlockTensorBuffer", _P),
    )


def created(function, *arguments):
    """What a C function hands out through its last argument."""
    handle = _P()
    assert function(*arguments, ctypes.byref(handle)) == 0, function.__name__
    return handle


class CompiledModel:
    """A model of one input and one output, compiled with our kernel."""

    def __init__(self, path, threads=1):
        folder = Path(ai_edge_litert.__file__).parent
        self.lib = lib = ctypes.CDLL(str(folder / "libLiteRt.so"))
        self.ours = ours = ctypes.CDLL(runtime.library_path())
        ours.dqa_litert_create.restype = _P
        ours.dqa_litert_error.restype = ctypes.c_char_p
        names = [name for name, _ in _Api._fields_]
        api = _Api(*(ctypes.cast(getattr(lib, name), _P) for name in names))
        self.kernel = _P(ours.dqa_litert_create(ctypes.byref(api)))
        ours.dqa_litert_threads(self.kernel, threads)
        self.environment = created(lib.LiteRtCreateEnvironment, 0, None)
        self.model = created(
            lib.LiteRtCreateModelFromFile, self.environment, str(path).encode()
        )
        options = created(lib.LiteRtCreateOptions)
        assert lib.LiteRtSetOptionsHardwareAccelerators(options, _CPU) == 0
        assert ours.dqa_litert_add(self.kernel, options) == 0
        tables, size = _P(), _S()
        assert (
            lib.LiteRtGetModelMetadata(
                self.model, b"DQA_RESIDUAL", ctypes.byref(tables), ctypes.byref(size)
            )
            == 0
        )
        assert ours.dqa_litert_tables(self.kernel, tables, size) == 0
        self.compiled = created(
            lib.LiteRtCreateCompiledModel, self.environment, self.model, options
        )
        lib.LiteRtDestroyOptions(options)
        signature = created(lib.LiteRtGetModelSignature, self.model, _S(0))
        self.input, _ = self._buffer(signature, "Input")
        self.output, self.shape = self._buffer(signature, "Output")

    def _buffer(self, signature, end):
        lib = self.lib
        find = getattr(lib, f"LiteRtGetSignature{end}TensorByIndex")
        type_ = _TensorType()
        tensor = created(find, signature, _S(0))
        assert lib.LiteRtGetRankedTensorType(tensor, ctypes.byref(type_)) == 0
        find = getattr(lib, f"LiteRtGetCompiledModel{end}BufferRequirements")
        needs, size = created(find, self.compiled, _S(0), _S(0)), _S()
        lib.LiteRtGetTensorBufferRequirementsBufferSize(needs, ctypes.byref(size))
        buffer = self._memory(type_, size)
        return buffer, tuple(type_.layout.dimensions[: type_.layout.rank])

    def _memory(self, type_, size):
        return created(
            self.lib.LiteRtCreateManagedTensorBuffer,
            *(self.environment, _HOST_MEMORY, ctypes.byref(type_), size),
        )

    def resize(self, shape):
        """Gives the input another shape of as many values."""
        lib = self.lib
        sizes = (ctypes.c_int * len(shape))(*shape)
        status = lib.LiteRtCompiledModelResizeInputTensorNonStrict(
            *(self.compiled, _S(0), _S(0), sizes, _S(len(shape)))
        )
        assert status == 0
        type_, size = _TensorType(), _S()
        lib.LiteRtGetTensorBufferTensorType(self.input, ctypes.byref(type_))
        lib.LiteRtGetTensorBufferSize(self.input, ctypes.byref(size))
        type_.layout.dimensions[: len(shape)] = shape
        lib.LiteRtDestroyTensorBuffer(self.input)
        self.input = self._memory(type_, size)

    def __call__(self, x):
        lib = self.lib
        address = _P()
        lib.LiteRtLockTensorBuffer(self.input, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, x.ctypes.data, x.nbytes)
        lib.LiteRtUnlockTensorBuffer(self.input)
        status = lib.LiteRtRunCompiledModel(
            *(self.compiled, _S(0)),
            *(_S(1), ctypes.byref(self.input), _S(1), ctypes.byref(self.output)),
        )
        assert status == 0, self.ours.dqa_litert_error(self.kernel)
        lib.LiteRtLockTensorBuffer(self.output, ctypes.byref(address), _READ)
        out = np.frombuffer(
            ctypes.string_at(address, 4 * int(np.prod(self.shape))), np.float32
        )
        lib.LiteRtUnlockTensorBuffer(self.output)
        return out.reshape(self.shape)

    def error(self):
        return self.ours.dqa_litert_error(self.kernel).decode()

    def close(self):
        lib = self.lib
        for buffer in (self.input, self.output):
            lib.LiteRtDestroyTensorBuffer(buffer)
        lib.LiteRtDestroyCompiledModel(self.compiled)
        lib.LiteRtDestroyModel(self.model)
        lib.LiteRtDestroyEnvironment(self.environment)
        self.ours.dqa_litert_destroy(self.kernel)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two regions that have plans and constants of one size before they are padded."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = x = keras.Input((6, 6, 8))
    for _ in range(2):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.Softmax()(layers.Conv2D(8, 1)(x))
    x = layers.GlobalAveragePooling2D()(x)
    data = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype(np.float32)
    model = dqa.quantize_model(keras.Model(inputs, x), dqa.DQAConfig())
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path_factory.mktemp("litert") / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data)
    assert report.ops["DQA"] >= 2
    return path, data


def test_a_compiled_model_takes_tables_from_the_metadata(coded_skip):
    folder, images = coded_skip
    test_a_compiled_model_gives_the_same_bytes((folder / "coded", images), 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_compiled_model_gives_the_same_bytes(exported, threads):
    path, data = exported
    interpreter = load_packed(path)
    interpreter.allocate_tensors()
    compiled = CompiledModel(path, threads)
    for image in data[:2]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        theirs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_array_equal(compiled(image), theirs)
    compiled.close()


def test_a_compiled_model_resized_to_as_many_values_says_so(exported):
    path, data = exported
    compiled = CompiledModel(path)
    compiled.resize((1, 4, 9, 8))
    # LiteRT goes on when an op fails.
    assert np.isnan(compiled(data[0])).all()
    assert re.search(r"\(1, 6, 6, 8\).*\(1, 4, 9, 8\)", compiled.error())
    compiled.close()


def test_an_error_of_a_compiled_model_lasts_until_its_next_run(exported):
    path, data = exported
    compiled = CompiledModel(path)
    assert np.isnan(compiled(np.full_like(data[0], np.inf))).all()
    assert "inputs must be finite" in compiled.error()
    assert np.isfinite(compiled(data[0])).all()
    assert compiled.error() == ""
    compiled.close()
