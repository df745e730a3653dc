"""Real model families, built small from KerasHub: audited without a fault, trained as without, judged as training does.

Nothing is downloaded: every backbone is made by its constructor, of a few small layers, and starts as its initializers
say. Together they have every kind of attention and activation that occurs there. A few families run by default, the
others with `-m slow`.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from keras_initaudit import InitAudit

os.environ["HF_HUB_OFFLINE"] = "1"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs the extra `families`")

Model = tuple[Any, Any, Any]
"""A compiled model, and a batch that it is to learn."""

SAMPLES, LENGTH, WORDS, CLASSES, SIDE = 16, 8, 40, 4, 32
UPDATES = 60
"""Updates within which a model as it ships must have brought the loss of its batch down, by a tenth at the least."""


def models() -> Any:
    import keras_hub  # takes seconds: not at collection

    return keras_hub.models


def hub_layers() -> Any:
    import keras_hub

    return keras_hub.layers


RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, WORDS, (SAMPLES, LENGTH)).astype("int32")
LABELS = RNG.integers(0, CLASSES, SAMPLES).astype("int32")
IMAGES = np.kron(RNG.uniform(size=(SAMPLES, SIDE // 4, SIDE // 4, 3)), np.ones((1, 4, 4, 1))).astype("float32")


def normal(*shape: int) -> Any:
    """The same at each call, as all data here."""
    return np.random.default_rng(1).normal(size=(SAMPLES, *shape)).astype("float32")


def text_inputs(backbone: Any, length: int = LENGTH) -> dict[str, Any]:
    known = {"token_ids": TOKENS[:, :length], "padding_mask": np.ones((SAMPLES, length), "int32")}
    known["segment_ids"] = np.zeros((SAMPLES, length), "int32")
    return {name: known[name] for name in backbone.input}


def compiled(inputs: Any, outputs: Any, x: Any, y: Any, loss: Any = None) -> Model:
    model = keras.Model(inputs, outputs)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss or crossentropy)
    return model, x, y


def classifier(backbone: Any, x: Any, features: Callable[[Any], Any]) -> Model:
    """A head of one layer, as KerasHub's own tasks have."""
    return compiled(backbone.input, keras.layers.Dense(CLASSES)(features(backbone.output)), x, LABELS)


def encoder(name: str, **settings: Any) -> Model:
    """Text in, a class out, by the first token."""
    sizes = {"vocabulary_size": WORDS, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    backbone = getattr(models(), name)(**(sizes | settings))

    def first(outputs: Any) -> Any:
        return (outputs["sequence_output"] if isinstance(outputs, dict) else outputs)[:, 0]

    return classifier(backbone, text_inputs(backbone), first)


def decoder(name: str, **settings: Any) -> Model:
    """Text in, the next token out, by the table of the tokens, as KerasHub's causal language models do it."""
    sizes = {"vocabulary_size": WORDS, "num_layers": 1, "hidden_dim": 16, "intermediate_dim": 32}
    heads = {"num_heads": 4} if name == "GPT2Backbone" else {"num_query_heads": 4, "num_key_value_heads": 2}
    backbone = getattr(models(), name)(**(sizes | heads | settings))
    logits = backbone.token_embedding(backbone.output, reverse=True)
    return compiled(backbone.input, logits, text_inputs(backbone), np.roll(TOKENS, -1, 1))


def image_classifier(backbone: Any) -> Model:
    def pooled(outputs: Any) -> Any:
        return keras.layers.GlobalAveragePooling2D()(outputs) if len(outputs.shape) == 4 else outputs[:, 0]

    return classifier(backbone, IMAGES, pooled)


def vit() -> Model:
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return image_classifier(models().ViTBackbone(image_shape=(SIDE, SIDE, 3), **sizes))


def resnet(block: str, pre_activation: bool) -> Model:
    stages = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7]}
    kind = {"block_type": block, "use_pre_activation": pre_activation}
    return image_classifier(models().ResNetBackbone(**stem, **stages, **kind, image_shape=(SIDE, SIDE, 3)))


def mobilenet() -> Model:
    return image_classifier(
        models().MobileNetBackbone(
            stackwise_expansion=[[16, 24], [32]],
            stackwise_num_blocks=[2, 1],
            stackwise_num_filters=[[16, 16], [24]],
            stackwise_kernel_size=[[3, 3], [5]],
            stackwise_num_strides=[[2, 1], [1]],
            stackwise_se_ratio=[[None, None], [0.25]],
            stackwise_activation=[["relu", "relu"], ["hard_swish"]],
            stackwise_padding=[[1, 1], [2]],
            output_num_filters=48,
            depthwise_filters=8,
            depthwise_stride=1,
            depthwise_residual=False,
            last_layer_filter=64,
            input_activation="hard_swish",
            output_activation="hard_swish",
            input_num_filters=8,
            image_shape=(SIDE, SIDE, 3),
        )
    )


def efficientnet() -> Model:
    return image_classifier(
        models().EfficientNetBackbone(
            stackwise_width_coefficients=[1.0, 1.0],
            stackwise_depth_coefficients=[1.0, 1.0],
            stackwise_kernel_sizes=[3, 3],
            stackwise_num_repeats=[1, 2],
            stackwise_input_filters=[8, 16],
            stackwise_output_filters=[16, 24],
            stackwise_expansion_ratios=[1, 4],
            stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
            stackwise_strides=[1, 2],
            stackwise_block_types=["fused", "unfused"],
            stackwise_force_input_filters=[0, 0],
            stackwise_nores_option=[False, False],
            num_features=48,
            input_shape=(SIDE, SIDE, 3),
        )
    )


def densenet() -> Model:
    backbone = models().DenseNetBackbone([2, 2, 2], growth_rate=8, image_shape=(SIDE, SIDE, 3))
    return image_classifier(backbone)


def sam() -> Model:
    """Image encoder, prompt encoder and mask decoder, trained on the masks of a point."""
    sizes = {"hidden_size": 16, "num_layers": 2, "intermediate_dim": 32, "num_heads": 2}
    image_encoder = models().ViTDetBackbone(
        global_attention_layer_indices=[1],
        patch_size=8,
        num_output_channels=16,
        window_size=2,
        image_shape=(SIDE, SIDE, 3),
        **sizes,
    )
    side = SIDE // 8
    prompt_encoder = hub_layers().SAMPromptEncoder(
        hidden_size=16, image_embedding_size=(side, side), input_image_size=(SIDE, SIDE), mask_in_channels=8
    )
    heads = {"embedding_dim": 16, "iou_head_depth": 2, "iou_head_hidden_dim": 16}
    mask_decoder = hub_layers().SAMMaskDecoder(**(sizes | heads | {"num_layers": 1}))
    backbone = models().SAMBackbone(image_encoder, prompt_encoder, mask_decoder)
    x = {
        "images": IMAGES,
        "points": np.random.default_rng(1).uniform(0, SIDE, (SAMPLES, 1, 2)).astype("float32"),
        "labels": np.ones((SAMPLES, 1), "float32"),
        "boxes": np.tile(np.array([[[[4.0, 4.0], [20.0, 20.0]]]], "float32"), (SAMPLES, 1, 1, 1)),
        "masks": np.zeros((SAMPLES, 0, SIDE, SIDE, 1), "float32"),
    }
    masks = (IMAGES[:, None, ::2, ::2, 0] > 0.5).astype("float32") * np.ones((1, 4, 1, 1), "float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return compiled(backbone.input, mask_decoder(**backbone.output)["masks"], x, masks, loss)


def diffusion() -> Model:
    """The multimodal transformer of Stable Diffusion 3, trained to predict a noise."""
    from keras_hub.src.models.stable_diffusion_3.mmdit import MMDiT

    x = {
        "latent": normal(8, 8, 4),
        "context": normal(LENGTH, 24),
        "pooled_projection": normal(24),
        "timestep": np.linspace(0.0, 999.0, SAMPLES, dtype="float32")[:, None],
    }
    shapes = {"latent_shape": (8, 8, 4), "context_shape": (None, 24), "pooled_projection_shape": (24,)}
    model = MMDiT(2, 32, num_layers=2, num_heads=2, position_size=8, qk_norm="rms_norm", **shapes)
    return compiled(model.input, model.output, x, 0.5 * x["latent"], "mse")


def clip() -> Model:
    """Both encoders, trained to tell apart which image belongs to which text."""
    sizes = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 32}
    vision = models().CLIPVisionEncoder(patch_size=8, image_shape=(SIDE, SIDE, 3), **sizes)
    text = models().CLIPTextEncoder(vocabulary_size=WORDS, embedding_dim=16, max_sequence_length=LENGTH, **sizes)
    backbone = models().CLIPBackbone(vision, text, projection_dim=16)
    x = {"images": IMAGES, "token_ids": TOKENS}
    y = (np.arange(SAMPLES) % (SAMPLES // 2)).astype("int32")  # of a batch of half of them
    return compiled(backbone.input, backbone.output["vision_logits"], x, y)


def whisper() -> Model:
    """Spectrograms and text in, text out."""
    sizes = {"vocabulary_size": WORDS, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    lengths = {"max_encoder_sequence_length": 32, "max_decoder_sequence_length": LENGTH}
    backbone = models().WhisperBackbone(num_mels=8, **sizes, **lengths)
    x = {
        "encoder_features": normal(32, 8),
        "decoder_token_ids": TOKENS,
        "decoder_padding_mask": np.ones((SAMPLES, LENGTH), "int32"),
    }
    logits = backbone.token_embedding(backbone.output["decoder_sequence_output"], reverse=True)
    return compiled(backbone.input, logits, x, np.roll(TOKENS, -1, 1))


def t5() -> Model:
    """Text in, text out, with relative positions and without any scaling of the attention."""
    sizes = {"vocabulary_size": WORDS, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    backbone = models().T5Backbone(activation="gelu", **sizes)
    mask = np.ones((SAMPLES, LENGTH), "int32")
    x = {"encoder_token_ids": TOKENS, "encoder_padding_mask": mask}
    x |= {"decoder_token_ids": TOKENS, "decoder_padding_mask": mask}
    logits = keras.layers.Dense(WORDS)(backbone.output["decoder_sequence_output"])
    return compiled(backbone.input, logits, x, np.roll(TOKENS, -1, 1))


GEMMA2 = {"head_dim": 8, "num_layers": 2, "attention_logit_soft_cap": 50.0, "use_post_ffw_norm": True}
GEMMA2 |= {"use_post_attention_norm": True, "use_sliding_window_attention": True, "sliding_window_size": 4}
GEMMA3 = {"head_dim": 8, "image_size": 16, "use_query_key_norm": True, "use_post_ffw_norm": True}
FAMILIES: dict[str, Callable[[], Model]] = {
    "BERT": lambda: encoder("BertBackbone", max_sequence_length=LENGTH),
    "DistilBERT": lambda: encoder("DistilBertBackbone", max_sequence_length=LENGTH),
    "ALBERT": lambda: encoder("AlbertBackbone", embedding_dim=8, max_sequence_length=LENGTH),
    "DeBERTa": lambda: encoder("DebertaV3Backbone", max_sequence_length=LENGTH, bucket_size=4),
    "FNet": lambda: encoder("FNetBackbone", max_sequence_length=LENGTH),
    "T5": t5,
    "GPT-2": lambda: decoder("GPT2Backbone", max_sequence_length=LENGTH),
    "Llama": lambda: decoder("LlamaBackbone"),
    "Mistral": lambda: decoder("MistralBackbone", sliding_window=4),
    "Mixtral": lambda: decoder("MixtralBackbone", num_experts=2),
    "Gemma": lambda: decoder("GemmaBackbone", head_dim=8),
    "Gemma 2": lambda: decoder("GemmaBackbone", **GEMMA2),
    "Gemma 3": lambda: decoder("Gemma3Backbone", **GEMMA3),
    "Qwen 2": lambda: decoder("QwenBackbone"),
    "Qwen 3": lambda: decoder("Qwen3Backbone", head_dim=8),
    "ViT": vit,
    "ResNet": lambda: resnet("basic_block", False),
    "ResNet V2": lambda: resnet("bottleneck_block", True),
    "MobileNet": mobilenet,
    "EfficientNet": efficientnet,
    "DenseNet": densenet,
    "SAM": sam,
    "Stable Diffusion 3": diffusion,
    "CLIP": clip,
    "Whisper": whisper,
}
"""Name -> how a small one is built, and its batch."""

NOT_REPEATABLE = ("SAM",)
"""Families of which two fits without any audit differ in the last bit: their threads add in an order left to chance."""

DEFAULT = ("BERT", "Llama", "ResNet")
"""The families of the default run."""


@dataclass
class Fits:
    """Two fits of one family, without and with the audit, and what became of the first."""

    name: str
    histories: tuple[Any, Any]
    weights: tuple[list[bytes], list[bytes]]
    warned: list[str]
    audit: InitAudit
    losses: tuple[float, float]
    """Of the batch, before the first update and after some dozens."""


def fitted(model: Any, x: Any, y: Any, epochs: int, *callbacks: Any) -> Any:
    """The history of a fit of two batches an epoch."""
    fit = model.fit(x, y, batch_size=SAMPLES // 2, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return fit.history


def built(name: str) -> Model:
    keras.utils.set_random_seed(1)
    return FAMILIES[name]()


def state(model: Any) -> list[bytes]:
    held = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)).tobytes() for variable in held]


@pytest.fixture(
    scope="module",
    params=[name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def family(request: pytest.FixtureRequest) -> Iterator[Fits]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a family was downloaded"))
        model, x, y = built(request.param)
        plain, weights = fitted(model, x, y, 2), state(model)
        later = fitted(model, x, y, UPDATES // 2)
        audit = InitAudit(log_dir=False, verbose=0)
        model, x, y = built(request.param)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            audited = fitted(model, x, y, 2, audit)
        said, losses = [str(warning.message) for warning in caught], (plain["loss"][0], later["loss"][-1])
        yield Fits(request.param, (plain, audited), (weights, state(model)), said, audit, losses)
    keras.backend.clear_session()


def test_it_is_audited_without_a_fault(family: Fits) -> None:
    assert not [text for text in family.warned if "stops auditing" in text or "fault of its own" in text]
    assert family.audit.reports, "no report"
    assert family.audit.reports[0].snapshot.step == 0
    assert not any(np.isnan(snapshot.loss) for snapshot in family.audit.snapshots)


def test_its_training_is_the_same_bit_for_bit(family: Fits) -> None:
    if family.name in NOT_REPEATABLE:
        np.testing.assert_allclose(*(history["loss"] for history in family.histories), rtol=1e-5)
        return
    assert family.histories[0] == family.histories[1]
    assert family.weights[0] == family.weights[1]


def test_as_it_ships_it_learns_and_is_not_called_bad(family: Fits) -> None:
    first, last = family.losses
    assert last < 0.9 * first
    report = family.audit.reports[0]
    assert report.verdict != "bad", report.text()
