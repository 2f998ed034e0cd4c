"""ResNet-32 and its training images, for the benchmarks that take them."""

import argparse
from pathlib import Path

from shared import arguments


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that all of them have."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--weights", type=Path, required=True)
    flags.add_argument("--data_dir", type=Path, required=True, help="TFDS datasets")
    flags.add_argument("--json", type=arguments.output, help="file for the figures")
    return flags


def load(options: argparse.Namespace):
    """The model with its weights, and CIFAR-10's training split as `tf.data`."""
    from dqa_keras import datasets
    from dqa_keras.models import resnet32

    train = datasets.load("cifar10", data_dir=options.data_dir).train
    return resnet32(weights=str(options.weights)), train
