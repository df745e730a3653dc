"""What the audit needs of Keras on every backend and Keras does not document: a function for each need.

The names behind them may move in any release. `tests/observe/test_private_names.py` looks each of them up. What is
needed of single layers stands in `layers/inside.py`.
"""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.backend import nn as backend_nn
from keras.src.backend.common import global_state, masking
from keras.src.trainers.data_adapters import get_data_adapter

from ..hooks import replace


def compiled_with(model: Any) -> tuple[Any, Any]:
    """What `compile` has left in a model: its optimizer, and the object that computes its loss, new at each call."""
    return model.optimizer, model._compile_loss


def all_built(model: Any) -> bool:
    """Whether the model, its layers, its loss and its metrics all have their variables."""
    loss = model._compile_loss
    return layers_built(model) and metrics_built(model) and (loss is None or loss.built)


def layers_built(model: Any) -> bool:
    """Whether the model and its layers have their variables."""
    return all(layer.built for layer in model._flatten_layers())


def build_with(model: Any, batch: Any) -> None:
    """Builds a model, its loss and its metrics from one batch, without running it."""
    model._symbolic_build(data_batch=batch)


def keras_made(layer: Any) -> bool:
    """Whether the class of a layer is one of Keras's own."""
    return type(layer).__module__.startswith("keras.src.")


def updates_per_call(model: Any) -> int:
    """How many batches one call of the train function takes."""
    return int(model.steps_per_execution)


def in_place_of_train_function(model: Any, first: Callable[..., Any]) -> Callable[[], None]:
    """Lets `first` take the place of the model's train function for one call, or until the model is asked for it.

    A `fit` that ends before that call leaves it behind; it goes as soon as the model is asked for its train function,
    as every `fit` does first.

    Args:
        model: In its `fit`, which has made its train function.
        first: Gets Keras's own train function, and what `fit` calls it with.

    Returns:
        A function that puts back what was there; a second call does nothing.
    """
    train, make = model.train_function, model.make_train_function

    def train_function(*arguments: Any) -> Any:
        put_back()
        return first(train, *arguments)

    def make_train_function(*args: Any, **kwargs: Any) -> Any:
        put_back()
        return make(*args, **kwargs)

    # This order, and the other way round at the end: an interrupt in between leaves the harmless one.
    put_back = replace(model, make_train_function=make_train_function, train_function=train_function)
    return put_back


def regularizes_activity(model: Any) -> bool:
    """Whether a layer adds a penalty on its outputs to the loss."""
    return any(getattr(layer, "activity_regularizer", None) is not None for layer in model._flatten_layers())


def has_foreign_layers(model: Any) -> bool:
    """Whether the class of the model, or of a layer in it, is not one of Keras's."""
    return not all(map(keras_made, model._flatten_layers()))


def metrics_built(model: Any) -> bool:
    """Whether the metrics that the model was compiled with have their variables."""
    return model._compile_metrics is None or model._compile_metrics.built


def build_metrics(model: Any, y: Any, outputs: Any) -> None:
    """Makes the variables of the metrics that the model was compiled with, as the first step would."""
    model._compile_metrics.build(y, outputs)


def losses_of(compiled: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """What a built object that computes a model's loss adds up: where in the outputs, and the `keras.losses.Loss`."""
    return [(part.path, part.loss) for part in compiled._flat_losses]


def mask_of(tensor: Any) -> Any:
    """The mask that goes with a tensor; None without one."""
    return masking.get_keras_mask(tensor)


def with_mask(tensor: Any, mask: Any) -> Any:
    """The tensor, with a mask that goes with it."""
    masking.set_keras_mask(tensor, mask)
    return tensor


def outputs_known(model: Any, samples: int) -> Any:
    """Arrays of the shapes that the outputs of a functional model have, which it need not run for.

    None for other models, where a size is not known, where a mask goes with an output, and where layers that are not
    Keras's own may add losses: only a run shows them.
    """
    if has_foreign_layers(model):
        return None
    try:
        outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    except AttributeError:
        return None
    leaves = keras.tree.flatten(outputs)
    if any(not leaf.shape or None in leaf.shape[1:] or mask_of(leaf) is not None for leaf in leaves):
        return None
    return keras.tree.map_structure(lambda leaf: np.zeros((leaf.shape[0] or samples, *leaf.shape[1:])), outputs)


def optimizer_state(optimizer: Any) -> list[Any]:
    """All variables of an optimizer and of those that it wraps, also what one does not list, as Nadam's product."""
    found = {id(variable): variable for variable in optimizer.variables}
    weights = {id(variable) for variable in weights_of(optimizer)}
    for part in (optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())):
        for value in vars(part).values() if part is not None else ():
            for held in value if isinstance(value, list | tuple) else (value,):
                if isinstance(held, keras.Variable) and id(held) not in weights:
                    found.setdefault(id(held), held)
    return list(found.values())


def weights_of(optimizer: Any) -> list[Any]:
    """The weights that an optimizer was built for, in the order of its slots."""
    return list(optimizer._trainable_variables)


def learning_rate_setting(optimizer: Any) -> Any:
    """The learning rate as it was given: a schedule, or a variable with a number; None where it has none.

    `optimizer.learning_rate` would be the number that a schedule gives now.
    """
    return getattr(optimizer, "_learning_rate", None)


def scheduled_rates(optimizer: Any) -> list[float]:
    """The learning rates of a schedule at the first step and at some steps up to a million; empty without one."""
    schedule = learning_rate_setting(getattr(optimizer, "inner_optimizer", optimizer))
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return []
    try:
        return [float(schedule(step)) for step in (0, *(n * 10**k for k in range(6) for n in (1, 2, 5, 10)))]
    except Exception:  # one of the person's own may want what only training gives
        return []


@contextlib.contextmanager
def names_kept() -> Iterator[None]:
    """Puts the counters back from which Keras makes names: the next layer gets the name that it would have had."""
    # As Keras itself asks for them: after `clear_session` there are none until the first name is made.
    default = collections.defaultdict[str, int](int)
    counters = global_state.get_global_attribute("object_name_uids", default, set_to_default=True)
    before = dict(counters)
    try:
        yield
    finally:
        counters.clear()
        counters.update(before)


def without_fit(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a callback, less those that Keras has given it for a `fit`."""
    return {name: value for name, value in attributes.items() if name not in ("params", "_model")}


def is_keras_2(kind: type) -> bool:
    """Whether a class is one of Keras 2: known by its module, so that neither package is imported."""
    return kind.__module__.split(".")[0] == "tf_keras" or kind.__module__.startswith("tensorflow.python.keras.")


class OutOfBatches:
    """The answers to what the `fit` of Keras 2 asks its callbacks: this one has nothing to do at a batch."""

    model: Any

    _supports_tf_logs = True

    @property
    def model_as_it_is(self) -> Any:
        """The model; on JAX `model` would end the state in which its `fit` is, between two steps of an epoch."""
        return vars(self)["_model"] if keras.backend.backend() == "jax" else self.model

    def _implements_train_batch_hooks(self) -> bool:
        return False

    _implements_test_batch_hooks = _implements_predict_batch_hooks = _implements_train_batch_hooks


def first_of_fit(x: Any, y: Any, sample_weight: Any, size: int, batches: str) -> Any:
    """The first batch that Keras makes of the data of a `fit`, of this size and in their order; None without data.

    `batches` is the method of Keras's data adapters that gives those of the backend.
    """
    adapter = get_data_adapter(x=x, y=y, sample_weight=sample_weight, batch_size=size, shuffle=False)
    adapter.on_epoch_begin()
    try:
        return next(iter(getattr(adapter, batches)()), None)
    finally:
        adapter.on_epoch_end()


# PyTorch


def runs_backward() -> bool:
    """Whether the code that runs now is part of a backward pass of PyTorch."""
    return bool(sys.modules["torch"]._C._current_graph_task_id() != -1)


def is_wrapped(tensor: Any) -> bool:
    """Whether a tensor of PyTorch stands for many, within `vmap` or a transformation like it."""
    return bool(sys.modules["torch"]._C._functorch.is_functorch_wrapped_tensor(tensor))


def logits_of(tensor: Any) -> Any:
    """What Keras's own softmax or sigmoid has made a tensor of; None for any other tensor."""
    return getattr(tensor, "_keras_logits", None)


def cross_entropies() -> tuple[Any, tuple[str, ...]]:
    """The module and the names under which Keras looks up the cross-entropies of its backend."""
    return backend_nn, (
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "binary_crossentropy",
    )


def parameter_of(tensor: Any) -> Any:
    """The parameter that a tensor of PyTorch is, or is a copy of in another precision."""
    node = tensor.grad_fn
    if node is not None and node.name() == "ToCopyBackward0":
        return getattr(node.next_functions[0][0], "variable", tensor)
    return tensor
