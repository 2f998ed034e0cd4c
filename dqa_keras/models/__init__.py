"""Reference models that the project measures with."""

from dqa_keras.models.efficientnet_lite import efficientnet_lite
from dqa_keras.models.efficientnet_mini import efficientnet_mini
from dqa_keras.models.mobilenet_v2 import mobilenet_v2
from dqa_keras.models.resnet32 import resnet32
from dqa_keras.models.unet import unet

__all__ = [
    "efficientnet_lite",
    "efficientnet_mini",
    "mobilenet_v2",
    "resnet32",
    "unet",
]
