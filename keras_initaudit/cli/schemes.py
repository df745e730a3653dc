"""`keras-initaudit schemes`: the initializers that are recommended, and the figures of one activation."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from .errors import CommandError

_SCHEMES = (
    ("relu, relu6", "HeNormal()", "N(0, 2 / fan_in)", "He et al. 2015"),
    ("tanh, sigmoid, softmax, linear", "GlorotNormal()", "N(0, 2 / (fan_in + fan_out))", "Glorot & Bengio 2010"),
    ("selu", "LeCunNormal()", "N(0, 1 / fan_in)", "Klambauer et al. 2017"),
    ("gelu, silu, elu, mish, ...", 'HeNormal(gain="gelu")', "N(0, gain^2 / fan_in)", "He et al. 2015, eq. 7"),
    ("recurrent kernels", "Orthogonal(blocks=4)", "orthogonal, one block a gate", "Saxe et al. 2014"),
    ("biases", "Zeros()", "0", ""),
)


def schemes(as_json: bool) -> None:
    """Prints what there is, by activation."""
    names = ("activation", "initializer", "law", "reference")
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in _SCHEMES]))
        return
    widths = [max(len(row[i]) for row in (names, *_SCHEMES)) for i in range(3)]
    for row in (names, *_SCHEMES):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())
    print("\nOne layer at a time. A deep chain without normalisation, of sigmoids above all: initialize(model).")


def activation(text: str, as_json: bool) -> None:
    """Prints gains, critical point and depth scales of one activation."""
    from ..records import to_jsonable
    from ..remedies.initialization import recommend
    from ..theory.chaos import critical_point, depth_scale
    from ..theory.gains import activation_name, gain

    def or_none(compute: Any, *arguments: Any) -> Any:
        try:
            return compute(*arguments)
        except ValueError:
            return None

    try:
        name = activation_name(text) or "linear"
        forward = gain(name)
    except ValueError as error:
        raise CommandError(f"--activation: {error}") from error
    scheme = recommend(name)
    exact = f'HeNormal(gain="{name}")'
    recommended = exact if scheme.gain == name != "relu" else f"{type(scheme).__name__}()"
    point = or_none(critical_point, name)
    # Of layers as wide as what comes in, which makes Glorot's variance that of LeCun.
    starts = {"GlorotNormal(), LeCunNormal()": 1.0, "HeNormal()": 2.0**0.5}
    if name != "relu":
        starts[exact] = forward
    found: dict[str, Any] = {
        "activation": name,
        "recommended": recommended,
        "gain": {"forward": forward, "backward": or_none(gain, name, "backward")},
        "critical_point": None if point is None else dataclasses.asdict(point),
        "starts": [
            {"initializer": start, "sigma_w": sigma, "depth_scale": or_none(depth_scale, name, sigma)}
            for start, sigma in starts.items()
        ],
    }
    if as_json:
        print(json.dumps(to_jsonable(found), allow_nan=False))
        return
    backward = found["gain"]["backward"]
    print(f"activation      {name}")
    print(f"recommended     {recommended}")
    print(f"gain            {forward:.4f} forward, {'none' if backward is None else f'{backward:.4f}'} backward")
    print(f"critical point  {'none' if point is None else f'weights of variance {point.sigma_w**2:.4g} / fan_in'}")
    width = max(map(len, starts))
    print(f"\n{'start'.ljust(width)}  variance of the weights  layers that a signal survives")
    for start in found["starts"]:
        variance = f"{start['sigma_w'] ** 2:.4g} / fan_in"
        print(f"{start['initializer'].ljust(width)}  {variance.ljust(23)}  {_depth(start['depth_scale'])}")
    print(
        "\nIn a plain chain of equally wide layers without biases: in so many layers, the difference of two inputs,\n"
        "or what they have in common, falls to 1 / e. Such a chain trains up to a few times that depth."
    )


def _depth(layers: float | None) -> str:
    # The fixed point is known to some nine digits: beyond 1e6 layers it cannot be distinguished from the edge of chaos.
    return "none: it grows without bound" if layers is None else "any number" if layers > 1e6 else f"{layers:.1f}"
