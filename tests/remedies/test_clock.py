"""The judgement of a trial, sentence by sentence, on curves that are written down; every limit from both sides."""

import math

import pytest

from keras_initaudit.records import Curve, Trial
from keras_initaudit.remedies import clock

CONSTANT, AT_TARGETS = 2.0, 0.0


def falling(needed, made=None, constant=CONSTANT, at_targets=AT_TARGETS):
    """Losses of which the last three of the first `needed` are the first to have come half of the way."""
    half = (constant + at_targets) / 2.0
    made = needed if made is None else made
    return [constant] * (needed - 3) + [half - 1e-3 * abs(half)] * (made - needed + 3)


def arriving(needed):
    return clock.curve(falling(needed), CONSTANT, AT_TARGETS)


def staying(share, made):
    """A curve that comes some share of the way, and no further."""
    loss = CONSTANT - share * (CONSTANT - AT_TARGETS)
    return clock.curve([CONSTANT] + [loss] * (made - 1), CONSTANT, AT_TARGETS)


@pytest.mark.parametrize(
    ("losses", "needed"),
    [
        ([2.0, 1.0, 1.0, 1.0], 4),
        ([1.0, 1.0, 1.0], 3),
        ([1.0, 1.0], None),  # fewer than three say nothing
        ([2.0, 0.9, 1.01, 1.1, 1.1], None),  # one that jumps below does not count
        ([2.0, 0.5, 1.2, 1.2], 4),  # the mean of three does
        ([2.0, 2.0, 1.01, 1.01, 1.01], None),
        ([math.nan, 0.1, 0.1, 0.1], 4),
        ([0.1, math.nan, 0.1, 0.1], None),
        ([0.1, math.inf, 0.1], None),
        ([], None),
    ],
)
def test_a_start_arrives_when_the_mean_of_the_last_three_losses_is_half_of_the_way(losses, needed):
    made = clock.curve(losses, CONSTANT, AT_TARGETS)
    assert made.needed == needed
    assert clock.arrived(losses, CONSTANT, AT_TARGETS) == (needed == len(losses))
    assert made.finite == all(map(math.isfinite, losses))


@pytest.mark.parametrize(("needed", "limit"), [(3, 20), (6, 20), (7, 21), (30, 90), (100, 300), (None, 300)])
def test_the_start_as_it_is_gets_three_times_as_many_updates_and_at_least_twenty(needed, limit):
    assert clock.as_is_limit(Curve((1.0,), CONSTANT, AT_TARGETS, needed)) == limit
    assert clock.REMEDIED_MOST == 100


@pytest.mark.parametrize(
    ("as_is", "remedied", "outcome"),
    [
        # it does not come there
        (staying(0.4, 24), arriving(8), "bad"),
        (staying(0.49, 20), arriving(3), "bad"),
        (staying(0.0, 300), arriving(100), "bad"),
        # it does, late: twice as many, and five more
        (arriving(16), arriving(8), "warning"),
        (arriving(15), arriving(8), "note"),
        (arriving(9), arriving(4), "warning"),
        (arriving(8), arriving(4), "note"),  # twice as many, but four more
        (arriving(10), arriving(5), "warning"),
        (arriving(29), arriving(15), "note"),  # 14 more, but not twice as many
        (arriving(8), arriving(8), "note"),
        (arriving(3), arriving(90), "note"),
        # the budget was too short to see whether it would
        (staying(0.0, 23), arriving(8), "warning"),  # it needs more than 23
        (staying(0.0, 15), arriving(8), "undecided"),
        (staying(0.0, 16), arriving(8), "warning"),
        # neither comes there
        (staying(0.012, 300), staying(0.05, 100), "bad"),
        (staying(0.013, 300), staying(0.05, 100), "undecided"),  # more than a quarter as far
        (staying(0.0, 300), staying(0.049, 100), "undecided"),  # the remedy hardly moves either
        (staying(-0.5, 300), staying(0.2, 100), "bad"),
        (staying(0.0, 299), staying(0.2, 100), "undecided"),  # cut short
        (staying(0.3, 300), staying(0.0, 100), "undecided"),
        (arriving(250), staying(0.3, 100), "note"),
        # hopeless, whatever the remedy does
        (staying(-1.01, 300), staying(-5.0, 100), "bad"),
        (staying(-0.99, 300), staying(-5.0, 100), "undecided"),
        (staying(-1.01, 299), staying(-5.0, 100), "undecided"),
        (clock.curve([2.0] * 299 + [math.nan], CONSTANT, AT_TARGETS), staying(0.0, 100), "bad"),
        (clock.curve([2.0] + [math.inf] * 20, CONSTANT, AT_TARGETS), staying(0.0, 100), "bad"),
        (clock.curve([2.0] + [math.inf] * 19, CONSTANT, AT_TARGETS), staying(0.0, 100), "undecided"),
        (clock.curve([math.nan] * 20, CONSTANT, AT_TARGETS), arriving(8), "bad"),
        (clock.curve([math.inf] * 5 + falling(12), CONSTANT, AT_TARGETS), arriving(8), "warning"),
    ],
)
def test_the_outcome(as_is, remedied, outcome):
    assert clock.judge(as_is, remedied) == outcome


def test_ways_are_compared_and_never_losses():
    """A remedy that divides the targets by 1000 makes every loss a million times smaller."""
    raw = clock.curve([5e6] * 24, 4e6, 0.0)
    scaled = clock.curve(falling(8, constant=4.0), 4.0, 0.0)
    assert scaled.needed == 8
    assert clock.judge(raw, scaled) == "bad"
    quick = clock.curve(falling(9, constant=4e6), 4e6, 0.0)
    assert clock.judge(quick, scaled) == "note"


def test_the_way_begins_where_the_loss_can_be_negative():
    """The loss of Poisson at a mean of 4 goes from -1.5 to -1.8: twice the first is below, and means nothing."""
    high = clock.curve([-1.2] * 300, -1.5, -1.8)  # one way above the constant answer: twice as far from the targets
    higher = clock.curve([-1.19] * 300, -1.5, -1.8)
    still = clock.curve([-1.5] * 100, -1.5, -1.8)
    assert clock.judge(high, still) == "undecided"
    assert clock.judge(higher, still) == "bad"


@pytest.mark.parametrize(
    ("losses", "is_lost"),
    [([1.0] + [math.nan] * 20, True), ([1.0] + [math.nan] * 19, False), ([math.inf] * 19 + [1.0], False)],
)
def test_twenty_losses_that_are_not_finite_are_enough(losses, is_lost):
    assert clock.lost(losses) == is_lost


@pytest.mark.parametrize(
    ("first", "end", "harms"),
    [
        (2.2, 4.5, True),  # above the first loss and twice the constant answer
        (2.2, 3.9, False),  # below twice
        (9.0, 4.5, False),  # below the first one
        (2.2, math.nan, True),
        (math.inf, 4.5, False),
    ],
)
def test_a_remedy_that_leaves_a_high_loss_is_harmful(first, end, harms):
    remedied = clock.curve([end] * 5, CONSTANT, AT_TARGETS)
    assert clock.harmful(clock.curve([first] * 5, CONSTANT, AT_TARGETS), remedied) == harms


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        (
            Trial("bad", clock.curve([2.3] * 40, 2.19, 1e-7), clock.curve(falling(8, constant=2.19), 2.19, 1e-7), 500),
            "With the remedy, 8 updates on this batch bring the loss half of the way from 2.2, the best constant "
            "answer, to 0; as it is, 40 do not.",
        ),
        (
            Trial("warning", arriving(16), arriving(8), 500),
            "With the remedy, 8 updates on this batch bring the loss half of the way from 2, the best constant "
            "answer, to 0; as it is, 16 do.",
        ),
        (
            Trial("bad", staying(0.01, 300), staying(0.2, 100), 500),
            "With the remedy, 100 updates on this batch bring the loss 20 % of the way from 2, the best constant "
            "answer, to 0; as it is, 300 bring it 1 %.",
        ),
        (
            Trial("note", arriving(250), staying(0.2, 100), 500),
            "With the remedy, 100 updates on this batch bring the loss 20 % of the way from 2, the best constant "
            "answer, to 0; as it is, 250 bring it half of the way.",
        ),
        (
            Trial("bad", clock.curve([math.nan] * 20, 2.0, 0.0), staying(0.0, 100), 500),
            "With the remedy, 100 updates on this batch bring the loss 0 % of the way from 2, the best constant "
            "answer, to 0; as it is, the loss is not finite after 20.",
        ),
        (Trial(reason="the model has a train_step of its own"), "Not tried: the model has a train_step of its own."),
    ],
)
def test_the_sentence_says_it_in_numbers(trial, sentence):
    assert clock.sentence(trial) == sentence
