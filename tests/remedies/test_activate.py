"""Another activation is tried by a step of its own, and leaves the model and its functions as they were."""

import keras
import numpy as np
import pytest
from keras import layers
from test_trial import LABELS, SAMPLES, Tried, X, probed, trained

from keras_initaudit.records.remedies import Activate
from keras_initaudit.remedies import apply

STEPS = 6


def network(activation):
    keras.utils.set_random_seed(5)
    hidden = [layers.Dense(24, activation, name=f"hidden_{i}") for i in range(2)]
    cell = layers.SimpleRNN(8, "sigmoid" if activation == "sigmoid" else "tanh", name="memory")
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Reshape((6, 4)), cell, layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("inside_fit", [False, True], ids=["alone", "in_fit"])
def test_the_losses_are_those_of_the_model_with_that_activation(inside_fit):
    curves = []

    def another(model):
        apply(Activate("relu", ("hidden_0", "hidden_1")), model)
        apply(Activate("tanh", ("memory",)), model)

    def act(probe, batch, train, iterator):
        updates = probe.updates(batch, train, iterator)
        for change in (None, lambda: another(probe.model), None):
            with updates.start(change) as (_, update):
                curves.append([update() for _ in range(STEPS)])

    model = network("sigmoid")
    before = [model.get_layer(f"hidden_{i}").activation for i in range(2)] + [model.get_layer("memory").activation]
    if inside_fit:
        fit = {"batch_size": SAMPLES, "epochs": STEPS, "shuffle": False, "verbose": 0}
        history = model.fit(X, LABELS, callbacks=[Tried(act)], **fit).history["loss"]
        np.testing.assert_array_equal(history, curves[0])  # the training itself has the old activation
    else:
        act(*probed(model), None, None)
    assert [model.get_layer(f"hidden_{i}").activation for i in range(2)] + [
        model.get_layer("memory").activation
    ] == before
    np.testing.assert_array_equal(curves[0], curves[2])
    np.testing.assert_allclose(curves[1], trained(network("relu"), STEPS), rtol=2e-4)
    assert abs(curves[0][0] - curves[1][0]) > 1e-3
