"""The weights that the package brings, and the cards beside them."""

from pathlib import Path

import numpy as np
import pytest

from dqa_keras import models

FOLDER = Path(models.__file__).parent
SHIPPED = sorted(FOLDER.glob("*.npz"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_weights_load_by_name(path):
    name = next(name for name in models.__all__ if path.stem.startswith(name))
    model = getattr(models, name)(weights=path.stem.removeprefix(f"{name}_"))
    image = np.zeros((1, *model.input_shape[1:]), np.float32)
    assert np.all(np.isfinite(model(image)))
    # Trained: variances of batch norms are not where they started, though float16 has
    # an exact 1 now and then.
    for variable in model.non_trainable_variables:
        if variable.path.endswith("moving_variance"):
            assert np.mean(np.asarray(variable) == 1) < 0.01, variable.path


def test_shipped_weights_are_small_and_have_cards():
    assert sum(path.stat().st_size for path in SHIPPED) < 12e6
    for path in SHIPPED:
        card = path.with_suffix(".md").read_text()
        assert path.name in card
        assert "%" in card


def test_camvid_weights_name_the_licence_of_their_data():
    assert "CC BY-NC 4.0" in (FOLDER / "unet_camvid.md").read_text()
    loaded = models.unet(weights="camvid")
    assert len(loaded.variables) == 92


def test_weights_that_are_not_shipped_are_named():
    with pytest.raises(ValueError, match=r"or one of \['camvid'\].*'mnist'"):
        models.unet(weights="mnist")


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9, None])
def test_weights_that_are_damaged_are_refused(tmp_path, position):
    damaged = bytearray((FOLDER / "resnet32_cifar10.npz").read_bytes())
    if position is None:
        del damaged[len(damaged) // 2 :]
    else:
        damaged[int(position * len(damaged))] ^= 0xFF
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"cannot read the weights .*damaged\.npz"):
        models.resnet32(weights=path)
