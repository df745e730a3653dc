"""The weights that Keras's attention layers give their keys, and the logits that they are the softmax of.

Both come from what the method that has the scores is called with.

Samples are cut to `SAMPLES` at once: they are computed a second time, for the audit. Imports keras only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

SAMPLES = 8
"""Samples of an attention layer whose weights are looked at."""


class Attention(NamedTuple):
    """Where a class of attention layers has its scores."""

    method: str
    """Name of the method that has them. Keras does not document it; layers of other packages have methods of the same
    name that take and mean something else."""
    weights: Callable[..., Any]
    """From the arguments of that method the weights `[samples, ..., queries, keys]`, and the logits, which are 0 where
    they are masked; None where they are not known."""


def dot_product(
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    return_attention_scores: Any = None,
    use_causal_mask: bool = False,
) -> Any:
    """Attention weights and logits `[samples, heads, queries, keys]` of `MultiHeadAttention` and its grouped kind."""
    del value, training, return_attention_scores
    if len(query.shape) != 4:  # several attention axes
        return None
    query, key = (ops.cast(x[:SAMPLES], "float32") for x in (query, key))
    scores = ops.einsum("btnh,bsnh->bnts", query, key) / math.sqrt(query.shape[-1])
    if attention_mask is not None:
        mask: Any = ops.cast(attention_mask[:SAMPLES], "bool")
        mask = mask[:, None] if len(mask.shape) == 3 else mask
    else:
        mask = ops.tril(ops.ones_like(scores)) > 0 if use_causal_mask else None
    if mask is None:
        return ops.softmax(scores), scores
    # Zero again behind the softmax, as in Keras: a padded query, which may look nowhere, has no weights.
    return ops.where(mask, ops.softmax(ops.where(mask, scores, -1e9)), 0.0), ops.where(mask, scores, 0.0)


def given_scores(scores: Any, value: Any, scores_mask: Any = None, **kwargs: Any) -> Any:
    """Attention weights and logits `[samples, queries, keys]` of `Attention` and `AdditiveAttention`."""
    del value, kwargs
    if len(scores.shape) != 3:
        return None
    scores = ops.cast(scores[:SAMPLES], "float32")
    if scores_mask is None:
        return ops.softmax(scores), scores
    mask = ops.cast(scores_mask[:SAMPLES], "bool")
    mask = mask[:, None] if len(mask.shape) == 2 else mask
    return ops.softmax(ops.where(mask, scores, -1e9)), ops.where(mask, scores, 0.0)
