"""What a packed file gives in LiteRT, beside its Keras model."""

import numpy as np

from dqa_keras.export import load_packed


def run(interpreter, images):
    """Outputs (N, ...) of a file with one input and one output."""
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    outputs = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(outputs)


def relative_error(model, path, images, threads=1):
    """Root of the squared error of the outputs over those of Keras, squared too."""
    outputs = run(load_packed(path, num_threads=threads), images)
    expected = np.asarray(model(images))
    return np.sqrt(np.mean((outputs - expected) ** 2) / np.mean(expected**2))
