"""What a run of the step changes on PyTorch, and how it is put back: tensors, modes, and every random state."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ....layers.inside import with_layers_below
from ..starting import members, variables_of_training


@contextlib.contextmanager
def tensors_kept(tensors: Iterable[Any]) -> Iterator[None]:
    """Puts the values of these tensors back, whatever the block did to them: all is written in place here.

    Also where the counter of writes says that there were none: it does not see those through `tensor.data`.
    """
    held = list({id(tensor): tensor for tensor in tensors}.values())
    with torch.no_grad():
        values = [tensor.clone() for tensor in held]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(held, values, strict=True):
                tensor.copy_(value)


@contextlib.contextmanager
def modules_kept(model: Any) -> Iterator[None]:
    """Puts back what modules hold beside variables: gradients, buffers, modes, and attributes of a person's own."""
    parameters = [(p, p.grad) for p in [*model.parameters(), *(v.value for v in model.variables)]]
    modules = modules_of(model)
    modes = [(module, module.training) for module in modules]
    buffers = [(module, name, b) for module in modules for name, b in module.named_buffers(recurse=False)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(tensors_kept(b for _, _, b in buffers))
        for module in modules:
            if not type(module).__module__.startswith(("keras.src.", "torch.")):
                stack.enter_context(_attributes_kept(module))
        for holder in _with_state(model):
            stack.enter_context(_state_kept(holder))
        for parameter, _ in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in parameters:
                parameter.grad = gradient
            for module, name, buffer in buffers:
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)
            for module, mode in modes:
                module.training = mode


def modules_of(model: Any) -> list[Any]:
    """The modules of a model and of all layers below it: layers in a list are no children of theirs to PyTorch."""
    return list({id(part): part for layer in with_layers_below(model) for part in layer.modules()}.values())


@contextlib.contextmanager
def _attributes_kept(module: Any) -> Iterator[None]:
    """Numbers that a module of a person's own counts up, tensors that it exchanges, generators that it draws from."""
    own = vars(module)
    plain = {name: value for name, value in own.items() if isinstance(value, _PLAIN)}
    tensors = [value for value in plain.values() if isinstance(value, torch.Tensor)]
    generators = [value for value in own.values() if isinstance(value, _GENERATORS)]
    states = [_generator_state(generator) for generator in generators]
    with tensors_kept(tensors):
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                _set_generator_state(generator, state)
            for name, value in plain.items():
                if name != "training" and own.get(name, None) is not value:
                    own[name] = value


_PLAIN = (bool, int, float, str, type(None), torch.Tensor)
_GENERATORS = (torch.Generator, np.random.Generator, random.Random)


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def _set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


def _with_state(model: Any) -> list[Any]:
    """The optimizers, schedules and gradient scalers of PyTorch that the model holds."""
    return [
        member
        for member in members(model)
        if hasattr(member, "state_dict") and hasattr(member, "load_state_dict") and not isinstance(member, _MODULE)
    ]


_MODULE = torch.nn.Module


@contextlib.contextmanager
def _state_kept(holder: Any) -> Iterator[None]:
    """Of an optimizer the settings of its groups alone: its step is not made."""
    if isinstance(holder, torch.optim.Optimizer):
        settings = [{k: copy.deepcopy(v) for k, v in group.items() if k != "params"} for group in holder.param_groups]
    else:
        state = copy.deepcopy(holder.state_dict())
    try:
        yield
    finally:
        if isinstance(holder, torch.optim.Optimizer):
            for group, kept in zip(holder.param_groups, settings, strict=True):
                group.update(kept)
        else:
            holder.load_state_dict(state)


def variables(model: Any, *, optimizers: bool) -> list[Any]:
    """The tensors of the variables of a model and its metrics; of its optimizers, if asked for."""
    if optimizers:
        return [variable.value for variable in variables_of_training(model)]
    return list({id(v): v.value for v in (*model.variables, *model.metrics_variables)}.values())


@contextlib.contextmanager
def torch_states_kept() -> Iterator[None]:
    """Puts back the random state of PyTorch on the host and on every device that is in use."""
    host = torch.get_rng_state()
    devices = [device for device in (torch.cuda, torch.xpu) if device.is_available() and device.is_initialized()]
    states = [device.get_rng_state_all() for device in devices]
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(host)
        for device, state in zip(devices, states, strict=True):
            device.set_rng_state_all(state)
        if apple is not None:
            torch.mps.set_rng_state(apple)
