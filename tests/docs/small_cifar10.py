"""What the pages' commands on CIFAR-10 need, in small: `write(folder)`."""

import numpy as np
import tensorflow_datasets as tfds

from dqa_keras.models import resnet32
from dqa_keras.models.weights import save_weights

CLASSES = [f"class {index}" for index in range(10)]


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A few images of noise under CIFAR-10's name, prepared as TFDS prepares it."""

    VERSION = tfds.core.Version("3.0.2")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(1)}

    def _generate_examples(self, seed):
        random = np.random.default_rng(seed)
        for index in range(8):
            image = random.integers(0, 256, (32, 32, 3), np.uint8)
            yield index, {"id": str(index), "image": image, "label": index}


def write(folder):
    """Writes `tfds` and `resnet32_cifar10.npz`, with random weights, into a folder."""
    Cifar10(data_dir=folder / "tfds").download_and_prepare()
    save_weights(resnet32(), folder / "resnet32_cifar10.npz")
