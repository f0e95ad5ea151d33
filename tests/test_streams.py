"""What is made of an evaluation's generator depends on the evaluation's address alone."""

import copy
import pickle

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers
from mpiabc.streams import Purpose, Stream, stream_key
from tests import problems

KEY = stream_key(1)
ADDRESSES = [(t, i) for t in (0, 1, 2**32 + 1) for i in (0, 1, 256, 2**40)]


def with_children(theta, rng):
    """Noise of children, of grandchildren, and of its own."""
    one, two = rng.spawn(2)
    (grandchild,) = two.spawn(1)
    (third,) = np.random.SeedSequence.spawn(rng.bit_generator.seed_seq, 1)
    ahead = np.random.Generator(rng.bit_generator.jumped(3))
    parts = [one, two, grandchild, np.random.default_rng(third), ahead, rng]
    return {"y": theta["mu"] + sum(part.standard_normal() for part in parts) / np.sqrt(len(parts))}


def only_children(theta, rng):
    return {"y": theta["mu"] + rng.spawn(1)[0].standard_normal()}


@pytest.mark.long
@pytest.mark.parametrize("simulate", [with_children, only_children])
def test_simulator_that_spawns_gives_one_digest_on_every_engine(simulate, tmp_path):
    sampler = problems.sampler(40, (3, 1.5), simulate=simulate)
    places = ["serial", schedulers.Processes(3), schedulers.Processes(1, start="spawn")]
    histories = [sampler.run(tmp_path / f"{i}.db", scheduler=place) for i, place in enumerate(places)]
    assert len({tuple(problems.digests(history)) for history in histories}) == 1
    assert len(np.unique(histories[0][0].summaries)) == 40
    assert [history.warnings for history in histories] == [[]] * 3


def test_children_are_those_of_the_address_whoever_stood_there_before():
    one, other = Stream(KEY, Purpose.SIMULATION), Stream(KEY, Purpose.SIMULATION)
    for address in ADDRESSES:
        first = [child.random() for child in one.at(*address).spawn(2)]
        rng = other.at(*address)
        rng.random(5)  # what is drawn changes no child
        assert [child.random() for child in [*rng.spawn(1), *rng.spawn(1)]] == first
        assert [child.random() for child in one.at(*address).spawn(2)] == first


def test_no_two_addresses_purposes_children_or_jumps_share_a_number():
    drawn = []
    for purpose in Purpose:
        stream = Stream(KEY, purpose)
        for address in ADDRESSES:
            rng = stream.at(*address)
            family = [*rng.spawn(2), *(np.random.Generator(rng.bit_generator.jumped(n)) for n in (1, 2))]
            drawn += [child.random() for child in [*family, family[2].spawn(1)[0], rng]]
    assert len(set(drawn)) == len(drawn) == 6 * len(Purpose) * len(ADDRESSES)


def test_numpys_own_jump_would_have_led_to_the_next_generation():
    """The reason for ours."""
    rng = Stream(KEY, Purpose.SIMULATION).at(0, 7)
    plain = np.random.Philox()
    plain.state = rng.bit_generator.state
    ahead = np.random.Generator(plain.jumped()).random()
    assert ahead == Stream(KEY, Purpose.SIMULATION).at(1, 7).random()
    assert np.random.Generator(rng.bit_generator.jumped()).random() != ahead


def test_copies_and_pickles_go_on_with_the_next_children():
    rng = Stream(KEY, Purpose.SIMULATION).at(0, 7)
    rng.spawn(2)
    copies = [copy.deepcopy(rng), pickle.loads(pickle.dumps(rng))]
    expected = rng.spawn(1)[0].random(), rng.random()
    assert [(each.spawn(1)[0].random(), each.random()) for each in copies] == [expected] * 2


def test_generator_is_numpys_to_all_who_ask():
    rng = Stream(KEY, Purpose.SIMULATION).at(0, 7)
    assert np.random.default_rng(rng) is rng
    assert isinstance(rng.bit_generator, np.random.Philox)
    plain = np.random.Philox()
    plain.state = rng.bit_generator.state
    assert np.random.Generator(plain).random() == rng.random()
    assert mpiabc.Normal(0, 1).rvs(3, rng).shape == (3,)
