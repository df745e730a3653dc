"""The schemes: Keras initializers, registered as `keras_initaudit>NAME`, on every backend."""

from keras_initaudit.initializers.composed import ICNR, DepthScaled
from keras_initaudit.initializers.fixed import RandomNormal, RandomUniform, TruncatedNormal, Zeros
from keras_initaudit.initializers.scaling import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    KaimingNormal,
    KaimingUniform,
    LeCunNormal,
    LeCunUniform,
    VarianceScaling,
    XavierNormal,
    XavierUniform,
)
from keras_initaudit.initializers.structured import DeltaOrthogonal, Identity, Orthogonal, Sparse

__all__ = [
    "ICNR",
    "DeltaOrthogonal",
    "DepthScaled",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "KaimingNormal",
    "KaimingUniform",
    "LeCunNormal",
    "LeCunUniform",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "Sparse",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
]
