import keras
import pytest
from keras import layers as kl

from dqa_keras.graph.linear_outputs import stored_linear


def kept(inputs, outputs):
    return stored_linear(keras.Model(inputs, outputs))


def conv(name, **options):
    return kl.Conv2D(4, 1, name=name, **options)


@pytest.fixture
def image():
    return keras.Input((4, 4, 4))


def test_a_bottleneck_is_kept_and_what_leads_to_it_is_not(image):
    x = kl.BatchNormalization(name="norm")(conv("project")(image))
    assert kept(image, kl.ReLU()(conv("next")(x))) == {"norm"}


def test_a_residual_stream_is_kept_and_what_is_added_to_it_is_not(image):
    x = conv("first")(image)
    for name in ("one", "two"):
        y = conv(f"{name}_project")(kl.ReLU()(conv(f"{name}_expand")(x)))
        x = kl.Add(name=f"{name}_sum")([x, kl.BatchNormalization()(y)])
    # The last sum has one reader, an activation.
    assert kept(image, kl.ReLU()(x)) == {"first", "one_sum"}


def test_what_activations_follow_is_not_kept(image):
    x = kl.ReLU()(kl.BatchNormalization()(conv("a")(image)))
    y = kl.Activation("swish")(conv("b")(x))
    y = conv("d")(conv("c", activation="relu")(y))
    assert kept(image, keras.ops.relu(y)) == frozenset()


def test_what_a_layer_with_an_activation_reads_is_kept(image):
    x = conv("linear")(image)
    assert kept(image, conv("next", activation="relu")(x)) == {"linear"}


def test_two_readers_keep_it_whatever_they_are(image):
    x = conv("stream")(image)
    assert kept(image, kl.ReLU()(x) + kl.BatchNormalization()(x)) == {"stream"}


def test_dropout_is_looked_through(image):
    x = kl.Dropout(0.5)(conv("alone")(image))
    x = kl.Add(name="sum")([kl.ReLU()(image), x])
    x = kl.GaussianNoise(0.1)(kl.SpatialDropout2D(0.5)(x))
    assert kept(image, conv("end")(x)) == {"sum"}


def test_pools_and_concatenations_read_what_must_be_there(image):
    x = kl.Concatenate()([kl.MaxPooling2D()(conv("pooled")(image))] * 2)
    wide = kl.Concatenate()([kl.UpSampling2D()(x), conv("joined")(image)])
    assert kept(image, kl.ReLU()(wide)) == {"pooled", "joined"}


def test_outputs_alone_are_not_kept(image):
    assert kept(image, conv("end")(image)) == frozenset()
