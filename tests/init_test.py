import importlib

import dqa_keras


def test_every_public_name_is_there():
    for name in (
        "DQAConfig",
        "quantize_model",
        "CalibrationCallback",
        "calibrate",
        "summary",
        "storage_bits",
        "layers",
        "skipped",
        "LayerTable",
        "TensorBoardCallback",
    ):
        assert name in dqa_keras.__all__
    for name in dqa_keras.__all__:
        assert getattr(dqa_keras, name) is not None
    for name in ("DQA", "Direct", "NoisyQuant"):
        assert getattr(dqa_keras.layers, name) is not None


def test_submodules_that_share_a_functions_name_stay_importable():
    assert callable(dqa_keras.summary)
    assert (
        importlib.import_module("dqa_keras.analysis.summary").summary
        is dqa_keras.summary
    )
