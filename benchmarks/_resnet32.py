"""ResNet-32 and its training images, for the benchmarks that take them."""

import argparse
from pathlib import Path


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that all of them have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--weights", type=Path, required=True)
    made.add_argument("--data_dir", type=Path, required=True, help="TFDS datasets")
    made.add_argument("--json", type=Path, help="file for the figures")
    return made


def load(options: argparse.Namespace):
    """The model with its weights, and CIFAR-10's training split as `tf.data`."""
    from dqa_keras import datasets
    from dqa_keras.models import resnet32

    train = datasets.load("cifar10", data_dir=options.data_dir).train
    return resnet32(weights=str(options.weights)), train
