"""Reference models that the project measures with."""

from dqa_keras.models.resnet32 import resnet32

__all__ = ["resnet32"]
