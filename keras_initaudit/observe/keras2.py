"""Models of Keras 2 (`tf_keras`): recognised by the module of their classes, so that neither is imported."""

from __future__ import annotations

from typing import Any


def keras_2_sentence(model: Any) -> str | None:
    """What to do with a model of Keras 2, as one sentence; None for any other object."""
    for kind in type(model).__mro__:
        if kind.__module__.split(".")[0] == "tf_keras" or kind.__module__.startswith("tensorflow.python.keras."):
            return (
                f"model is a Keras 2 model ({type(model).__name__}, by {kind.__module__}), and only those of Keras 3 "
                "can be audited and initialized: make it with `import keras` in place of `tf_keras`, and without "
                "TF_USE_LEGACY_KERAS where it comes from `tf.keras`"
            )
    return None


def refuse_keras_2(model: Any) -> None:
    """TypeError, with the remedy, where `model` is one of Keras 2."""
    sentence = keras_2_sentence(model)
    if sentence is not None:
        raise TypeError(sentence)


class OutOfBatches:
    """The answers to what the `fit` of Keras 2 asks its callbacks: this one has nothing to do at a batch."""

    _supports_tf_logs = True

    def _implements_train_batch_hooks(self) -> bool:
        return False

    _implements_test_batch_hooks = _implements_predict_batch_hooks = _implements_train_batch_hooks
