"""Names cut to a few columns: still different, still in order, and what a person reads in them."""

from __future__ import annotations

import random
import time

import pytest

from keras_initaudit.names import LEAST, shortened

PARTS = ("query", "key", "value", "attention_output")
BERT = [
    f"transformer_layer_{i}/{part}"
    for i in range(12)
    for part in (*(f"self_attention_layer/{p}" for p in PARTS), "feedforward_intermediate_dense", "feedforward_output")
]
RESNET = [
    f"conv{stage}_block{block}_{step}_{kind}"
    for stage in range(2, 6)
    for block in range(1, 4)
    for step in range(4)
    for kind in ("conv", "bn")
]
NAMES = {
    "bert": BERT,
    "nested": [f"stable_diffusion/diffuser/{name}" for name in BERT],
    "resnet": [*RESNET, "avg_pool", "predictions"],
    "calls": [f"a_shared_layer_of_a_long_name#{i}" for i in range(30)],
    "one word": ["x" * 40 + end for end in "abc"],
    "different in the middle": ["a" * 30 + letter + "b" * 30 for letter in "pqrst"],
    "alike when cut": ["attention", *(f"attention_{'x' * i}" for i in range(1, 40))],
    "hostile": ["\x1b[2J" * 9, "\n" * 30, "\n" * 31, "/" * 40, "/" * 41, "", "~1", "é" * 30, "数" * 30, "٣" * 40],
}


@pytest.mark.parametrize("width", [LEAST, 12, 17, 24, 40])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_that_differ_stay_different_and_what_fits_stays(names: list[str], width: int) -> None:
    made = shortened(names, width)
    assert max(map(len, made)) <= width
    assert len(set(made)) == len(set(names))
    assert all(text == name for name, text in zip(names, made, strict=True) if len(name) <= width)
    ends = {f"{name[: width // 3]}...{name[width // 3 + 3 - width :]}" for name in names if len(name) > width}
    if names is BERT and width < 40:
        assert len(ends) < len(set(names))  # a cut in the middle alone would not do


def test_names_drawn_at_random_stay_different() -> None:
    random.seed(0)
    for _ in range(100):
        names = ["".join(random.choices("ab1_/", k=random.randint(0, 30))) for _ in range(40)]
        width = random.randint(LEAST, 16)
        made = shortened(names, width)
        assert max(map(len, made)) <= width
        assert len(set(made)) == len(set(names))
        pairs = dict(zip(names, made, strict=True))
        assert [pairs[name] for name in names] == made  # one name, one text


def test_a_long_path_keeps_its_numbers_and_the_beginning_of_each_word() -> None:
    assert shortened(BERT, 24)[:3] == ["tr_la_0/se_at_la/query", "tr_la_0/se_at_la/key", "tr_la_0/se_at_la/value"]
    assert shortened(BERT, 16)[6] == "t_l_1/s_a_l/quer"
    assert shortened(RESNET, 12)[0] == "co2_bl1_0_co"
    assert shortened(["a_shared_layer_of_a_long_name#12"], 18) == ["a_s_l_o_a_l_nam#12"]


def test_folders_that_all_names_share_go_first() -> None:
    assert shortened([f"attention/{part}" for part in PARTS], 16)[3] == ".../atten_output"
    assert shortened([f"attention/{part}" for part in PARTS], 16, "\u2026")[3] == "\u2026/attenti_output"
    assert shortened(NAMES["nested"], 24)[0] == ".../t_l_0/s_a_l/query"
    assert shortened(["backbone/a_layer_of_a_long_name", "head"], 16)[0].startswith("b")


def test_two_thousand_names_take_no_time() -> None:
    start = time.process_time()
    shortened([f"stage_{i // 50}/block_{i}/a_very_long_attention_name/query" for i in range(2000)], 20)
    assert time.process_time() - start < 2.0


def test_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8, got 7"):
        shortened(["dense"], LEAST - 1)
    assert shortened([], LEAST) == []
