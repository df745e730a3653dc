"""Audits of a residual network, written down by hand: logs for tests of what is drawn of a main line and its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_initaudit.records import Curve, Finding, LayerInfo, Snapshot, Statistics, Trial


def rows(blocks: int) -> tuple[LayerInfo, ...]:
    """An embedding, `blocks` blocks of a normalisation and two kernels around which the stream leads, a head."""
    made = [LayerInfo("(input)", -1, role="input")]

    def add(path: str, kind: str, inputs: tuple[str, ...], weight: tuple[int, ...] = (), **more: object) -> None:
        named = {"weight": "kernel", "fan_in": 8.0, "fan_out": 8.0} if weight else {}
        info = LayerInfo(
            path, len(made) - 1, kind=kind, shape=(8,), inputs=inputs, weight_shape=weight, **named, **more
        )
        made.append(info)

    add("embedding", "Dense", ("(input)",), (8, 8))
    stream = "embedding"
    for k in range(blocks):
        add(f"block{k}_norm", "LayerNormalization", (stream,), normalises="layer")
        add(f"block{k}_up", "Dense", (f"block{k}_norm",), (8, 8), activation="tanh")
        add(f"block{k}_down", "Dense", (f"block{k}_up",), (8, 8))
        add(f"block{k}_sum", "Add", (stream, f"block{k}_down"))
        stream = f"block{k}_sum"
    add("head", "Dense", (stream,), (8, 8), activation="softmax")
    return (*made, LayerInfo("(target)", len(made) - 1, role="target"))


def audits(steps: Sequence[int], blocks: int = 4, saturated: float = 0.01, branch: float = 0.5) -> Iterator[Snapshot]:
    """Snapshots in which the stream grows a little, `branch` is the rms of what is added, `saturated` that of `up`."""
    layers = rows(blocks)
    for step in steps:
        statistics = []
        for info in layers:
            if info.role != "layer":
                statistics.append(Statistics())
                continue
            inside = info.path.endswith(("_up", "_down"))
            rms = branch if inside else 1.0 + 0.1 * info.depth
            statistics.append(
                Statistics(
                    activation_rms=rms,
                    activation_nonfinite=0.0,
                    activation_saturated=saturated if info.activation == "tanh" else float("nan"),
                    backward_rms=0.01,
                    backward_nonfinite=0.0,
                    weight_rms=0.3 if info.weight_shape else float("nan"),
                    gradient_rms=0.01 if info.weight_shape else float("nan"),
                    update_log10=-3.0 if info.weight_shape else float("nan"),
                )
            )
        yield Snapshot(step, layers, tuple(statistics), loss=2.3, baseline_loss=2.3, batch_size=32, optimizer="Adam")


def saturated_units(blocks: int = 4) -> list[Finding]:
    """The same fault in every block, found one at a time."""
    return [
        Finding(
            "saturated-units",
            "bad",
            f"block{k}_up",
            f"9{k} % of the outputs of block{k}_up are saturated",
            {"observed": 0.9 + k / 100, "expected": 0.0, "threshold": 0.35, "affected": [f"block{k}_up"], "step": 0},
            "from keras_initaudit import GlorotUniform\nkernel_initializer = GlorotUniform()",
            "Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html",
            proof="With the remedy, 9 updates on this batch bring the loss half of the way; as it is, 27 do not.",
        )
        for k in range(blocks)
    ]


def trial() -> Trial:
    """One in which the remedy learns within nine updates, and the start as it is does not."""
    return Trial(
        "bad",
        Curve(tuple(2.4 - 0.002 * i for i in range(27)), 2.3, 0.0),
        Curve(tuple(2.4 * 0.9**i for i in range(9)), 2.3, 0.0, 9),
        100,
    )
