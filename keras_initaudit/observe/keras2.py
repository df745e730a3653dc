"""Models of Keras 2 (`tf_keras`): what to say of them."""

from __future__ import annotations

from typing import Any

from .engines.undocumented import is_keras_2


def keras_2_sentence(model: Any) -> str | None:
    """What to do with a model of Keras 2, as one sentence; None for any other object."""
    for kind in type(model).__mro__:
        if is_keras_2(kind):
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
