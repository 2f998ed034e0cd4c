"""Deep quantization of DNN activations (DQA) for Keras.

>>> import dqa_keras as dqa
>>> config = dqa.DQAConfig(bits=4, extra_bits=2, important_fraction=0.25)
"""

from dqa_keras import layers
from dqa_keras.analysis.storage import LayerStorage, Storage, storage_bits
from dqa_keras.analysis.summary import summary
from dqa_keras.analysis.tensorboard import TensorBoardCallback
from dqa_keras.calibration.calibrate import CalibrationCallback, calibrate
from dqa_keras.calibration.distribution import LostWorkerError
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.config import DQAConfig
from dqa_keras.graph.insertion import Skipped, quantize_model, skipped
from dqa_keras.tuning.bias_correction import correct_bias
from dqa_keras.tuning.fine_tuning import FineTuning
from dqa_keras.tuning.reconstruction import reconstruct
from dqa_keras.version import __version__

__all__ = [
    "CalibrationCallback",
    "DQAConfig",
    "FineTuning",
    "LayerStorage",
    "LayerTable",
    "LostWorkerError",
    "Skipped",
    "Storage",
    "TensorBoardCallback",
    "__version__",
    "calibrate",
    "correct_bias",
    "layers",
    "quantize_model",
    "reconstruct",
    "skipped",
    "storage_bits",
    "summary",
]
