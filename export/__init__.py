"""Exports calibrated Keras models to `.tflite` and reads the metadata back.

>>> from dqa_keras.export import export_tflite, read_metadata
"""

from dqa_keras.export.metadata import Metadata, MetadataError, read_metadata
from dqa_keras.export.tflite import ExportReport, export_tflite
from dqa_keras.export.verification import VerificationError

__all__ = [
    "ExportReport",
    "Metadata",
    "MetadataError",
    "VerificationError",
    "export_tflite",
    "read_metadata",
]
