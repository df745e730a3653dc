"""Names that PyTorch does not document, and what is needed of each, for `test_private_names`.

Nothing is imported before a name is looked up: `test_engines_torch` does that, where Keras runs on PyTorch.
"""

import keras


def knows_backward():
    import torch

    seen = []
    y = 2.0 * torch.ones(2, requires_grad=True)
    y.register_hook(lambda _: seen.append(torch._C._current_graph_task_id() != -1))
    y.sum().backward()
    return seen == [True] and torch._C._current_graph_task_id() == -1


def knows_vmap():
    import torch

    seen = []
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    torch.vmap(lambda x: seen.append(wrapped(x)) or x)(torch.ones(2))
    return seen == [True] and not wrapped(torch.ones(2))


def operations(function):
    """The names of the operations of ATen that a function runs."""
    from torch.utils._python_dispatch import TorchDispatchMode

    names = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Seen():
        function()
    return names


def has_operation(name):
    import torch

    return getattr(torch.ops.aten, name)


NAMES = [
    ("torch.utils._python_dispatch.TorchDispatchMode", "sees every operation", lambda: operations(lambda: _twice())),
    ("PyTorch: _C._current_graph_task_id", "whether a backward pass runs", knows_backward),
    ("PyTorch: _C._functorch.is_functorch_wrapped_tensor", "whether a tensor stands for many", knows_vmap),
    ("aten._to_copy", "a cast", lambda: operations(lambda: _ones().double())[-1] == "_to_copy"),
    ("aten._unsafe_view", "the end of a product of more than two axes", lambda: has_operation("_unsafe_view")),
    (
        "keras.src.backend.nn",
        "where Keras looks up a cross-entropy",
        lambda: callable(keras.src.backend.nn.categorical_crossentropy),
    ),
]
"""(name, need, look)."""


def _ones():
    import torch

    return torch.ones(2)


def _twice():
    return 2.0 * _ones()
