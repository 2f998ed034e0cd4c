"""Deep quantization of DNN activations (DQA) for Keras."""

from dqa_keras.config import DQAConfig
from dqa_keras.version import __version__

__all__ = ["DQAConfig", "__version__"]
