"""What an optimizer under muP is made of beside the parts that Keras has.

Both classes are registered with Keras as soon as Keras is imported, so that a saved model loads. Imports keras only.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_PACKAGE = "keras_initaudit"


@keras.saving.register_keras_serializable(package=_PACKAGE)
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule times a constant.

    Args:
        schedule: The schedule.
        factor: The constant.

    Example:
        >>> decay = keras.optimizers.schedules.PolynomialDecay(1.0, 10, end_learning_rate=0.0)
        >>> float(ScaledSchedule(decay, 0.5)(5))
        0.25
    """

    def __init__(self, schedule: Any, factor: float) -> None:
        self.schedule = schedule
        self.factor = factor

    def __call__(self, step: Any) -> Any:
        """The rate at a step."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledSchedule:
        """A schedule from what `get_config` gave."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


_Several: Any = getattr(keras.optimizers, "MultiOptimizer", keras.optimizers.Optimizer)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class ClippedMultiOptimizer(_Several):
    """A `MultiOptimizer` that clips the gradients of all its optimizers by one norm.

    The optimizers in it would each clip by the norm of their own weights.

    Args:
        optimizer_map: As `keras.optimizers.MultiOptimizer` takes it.
        clip: The largest norm of all gradients together.
        **options: As `keras.optimizers.MultiOptimizer` takes them.
    """

    def __init__(self, optimizer_map: Any, clip: float, **options: Any) -> None:
        super().__init__(optimizer_map, **options)
        self.clip = clip

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One update, after the gradients are clipped."""
        present = [ops.convert_to_tensor(grad) for grad in grads if grad is not None]
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in present))
        # Not a division by the norm alone: it may be zero. One that is not finite stays so.
        share = self.clip / ops.maximum(norm, self.clip)
        scaled = iter([grad * ops.cast(share, grad.dtype) for grad in present])
        super().apply([None if grad is None else next(scaled) for grad in grads], trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {**super().get_config(), "clip": self.clip}
