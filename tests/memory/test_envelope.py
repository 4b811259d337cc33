from hypothesis import given
from hypothesis import strategies as st

from automl.memory.caching_allocator import MIB, Event, needed_bytes, peak_live_bytes
from automl.memory.envelope import KNOTS, Envelope, build_envelope, events_at, upper_envelope

lines = st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 10**7)), min_size=1, max_size=30)
batches = st.integers(1, 5000)


@given(lines, batches)
def test_the_upper_envelope_is_the_maximum_of_all_lines(all_lines, batch):
    kept = upper_envelope(all_lines)
    assert max(a + k * batch for a, k in kept) == max(a + k * batch for a, k in all_lines)


@given(lines)
def test_the_upper_envelope_keeps_no_line_that_never_wins(all_lines):
    kept = upper_envelope(all_lines)
    slopes = [k for _, k in kept]
    assert slopes == sorted(set(slopes))
    assert set(kept) <= set(all_lines)


def step_events(batch):
    """A weight, an activation, a gradient: the peak is the gradient's below, the activation's above a batch of 4."""
    activation = 2 * MIB * batch
    return [
        *(Event(0, 8 * MIB), Event(1, activation), Event(2, activation), Event(2, -activation)),
        *(Event(1, -activation), Event(3, 16 * MIB), Event(3, -16 * MIB)),
    ]


def test_the_envelope_equals_every_direct_count():
    envelope = build_envelope(step_events(2), step_events(3), (2, 3))
    assert envelope.lines == ((24 * MIB, 0), (8 * MIB, 4 * MIB))
    for batch in range(1, 50):
        assert envelope.live_bytes(batch) == peak_live_bytes(step_events(batch))
    for knot in KNOTS:
        assert envelope.needed_bytes(knot) == max(needed_bytes(step_events(b)) for b in KNOTS if b <= knot)


def test_scaled_events_are_those_of_the_other_batch():
    assert events_at(step_events(2), step_events(3), (2, 3), 7) == step_events(7)


@given(batches, batches)
def test_more_images_never_take_less(one, two):
    envelope = build_envelope(step_events(2), step_events(3), (2, 3))
    assert envelope.needed_bytes(min(one, two)) <= envelope.needed_bytes(max(one, two))
    assert envelope.needed_bytes(one) >= envelope.live_bytes(one)


def test_between_knots_it_is_interpolated_and_beyond_them_in_proportion():
    envelope = Envelope(lines=((0, 10),), needed=((8, 100), (16, 200)))
    assert envelope.needed_bytes(12) == 150
    assert envelope.needed_bytes(16) == 200
    assert envelope.needed_bytes(32) == 400


def test_traces_that_do_not_pair_give_a_line_through_their_peaks():
    other = [Event(0, 9 * MIB), Event(1, 40 * MIB)]
    envelope = build_envelope([Event(0, 30 * MIB)], other, (2, 3))
    assert envelope.live_bytes(2) == 30 * MIB
    assert envelope.live_bytes(3) == 49 * MIB
    assert envelope.needed_bytes(6) >= envelope.live_bytes(6)
