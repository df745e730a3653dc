"""What is asked of Keras by names that it does not document: the answers, on small models."""

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from keras_initaudit.observe.engines import undocumented


def model(rate=0.1):
    made = keras.Sequential([keras.layers.Dense(2)])
    made.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return made


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_next_layer_gets_the_name_that_it_would_have_had(forgotten):
    """Also where Keras has made no name yet, as after `clear_session`."""
    kept = global_state.get_global_attribute("object_name_uids")
    try:
        if forgotten:
            global_state.set_global_attribute("object_name_uids", None)
            expected = "lambda"
        else:
            keras.layers.Lambda(abs, name=None)
            expected = f"lambda_{global_state.get_global_attribute('object_name_uids')['lambda']}"
        with undocumented.names_kept():
            assert keras.layers.Lambda(abs).name == expected
            assert keras.layers.Lambda(abs).name != expected
        assert keras.layers.Lambda(abs).name == expected
    finally:
        global_state.set_global_attribute("object_name_uids", kept)


def test_to_compile_again_is_seen():
    made = model()
    before = undocumented.compiled_with(made)
    assert all(a is b for a, b in zip(before, undocumented.compiled_with(made), strict=True))
    made.compile(made.optimizer, "mae")
    after = undocumented.compiled_with(made)
    assert (before[0] is after[0], before[1] is after[1]) == (True, False)


def test_a_model_is_built_with_its_loss_and_metrics():
    made = model()
    assert not undocumented.all_built(made)
    made.build((None, 3))
    assert not undocumented.all_built(made)
    made.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
    assert undocumented.all_built(made)


def test_a_schedule_is_given_as_it_is():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 10, 0.5)
    assert undocumented.learning_rate_setting(model(schedule).optimizer) is schedule
    assert float(undocumented.learning_rate_setting(model(0.3).optimizer)) == pytest.approx(0.3)
    assert undocumented.learning_rate_setting(object()) is None


def test_an_optimizer_has_the_weights_that_it_was_built_for():
    made = model()
    made.build((None, 3))
    made.optimizer.build(made.trainable_variables[:1])
    assert [id(v) for v in undocumented.weights_of(made.optimizer)] == [id(made.layers[0].kernel)]
