"""Parts of users' own that are wrong are noticed: by a run, as it comes to them, and in a line of a test."""

import functools
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

import mpiabc
from examples.extending.distance import Huber, dissimilarity
from examples.extending.kernel import Student
from examples.extending.threshold import Halfway
from mpiabc import promises, testing
from mpiabc.copied import copied
from tests import problems


class Around:
    """A proposal: a Gaussian around the mean, twice as wide as it need be."""

    def __init__(self, population):
        self.centre = population.mean().view(np.ndarray)

    def sample(self, n, rng):
        return self.centre + 4 * rng.standard_normal((n, len(self.centre)))

    def logpdf(self, theta):
        return -0.5 * np.square((theta - self.centre) / 4).sum(axis=1)


class Fits:
    """A kernel that gives a proposal of a class."""

    def __init__(self, proposal=Around):
        self.proposal = proposal

    def fit(self, population):
        return self.proposal(population)


class Leaning(Around):
    is_rowwise = True

    def logpdf(self, theta):
        return super().logpdf(theta) - theta.mean()


class Wandering(Around):
    def __init__(self, population):
        super().__init__(population)
        self.centre = self.centre + np.random.standard_normal()


class Narrow(Around):
    def logpdf(self, theta):
        return 4 * super().logpdf(theta)


class Fickle(Around):
    def logpdf(self, theta):
        return super().logpdf(theta) + np.random.random()


class Likewise(Around):
    """Its attributes have names that those of ours have."""

    def __init__(self, population):
        super().__init__(population)
        self.proposals = [self.centre, self.centre]

    def parts(self):
        return self.proposals


def proposal(**methods):
    return Fits(type("Mine", (Around,), methods))


class Absolute:
    """A distance of rows."""

    def rows(self, simulated, observed):
        return np.abs(simulated - observed).sum(axis=1)


class Jumping(Absolute):
    def rows(self, simulated, observed):
        return super().rows(simulated, observed) + 0.1 * np.random.random(len(simulated))


class Drifting(Absolute):
    """With a generator of its own, which goes on."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def rows(self, simulated, observed):
        return super().rows(simulated, observed) + 0.1 * self.rng.random(len(simulated))


class Positive(Absolute):
    """A distance for numbers above 0, as all of its simulations are."""

    def rows(self, simulated, observed):
        return super().rows(np.log(simulated), np.log(observed))


class Relative(Absolute):
    is_rowwise = True

    def rows(self, simulated, observed):
        return super().rows(simulated, observed) / (1 + simulated.std())


class Negative(Absolute):
    def rows(self, simulated, observed):
        return -super().rows(simulated, observed)


@dataclass
class Scaled(Absolute):
    scale: float

    def rows(self, simulated, observed):
        return self.scale * super().rows(simulated, observed)


class Rescaling(Absolute):
    def fit(self, sample, observed):
        return Scaled(1 + np.random.random())


class Guessing:
    """A predictor whose coefficient is drawn."""

    def fit(self, theta, summaries):
        self.scale = np.random.random()

    def predict(self, summaries):
        return self.scale * summaries[:, :1]


class Counting:
    """A threshold, and a size, that remember what they have said."""

    n = 100

    def epsilon(self, generation, previous):
        return float(self.size(generation, previous))

    def size(self, generation, previous):
        self.n -= 1
        return self.n


class Generating:
    """A threshold that cannot be copied."""

    def __init__(self):
        self.values = (4.0 / 2**generation for generation in range(9))

    def epsilon(self, generation, previous):
        return next(self.values)


class Widening:
    """A kernel whose proposals are the wider the more it has fitted."""

    fits = 0

    def fit(self, population):
        self.fits += 1
        proposal = Around(population)
        proposal.centre = proposal.centre + 0.1 * self.fits
        return proposal


class Rising:
    def epsilon(self, generation, previous):
        return 1.0 + generation


def rule(**methods):
    return type("Mine", (), methods)()


class Marginal:
    def rvs(self, size, random_state):
        return random_state.normal(0, 2, size)

    def logpdf(self, x):
        return -0.5 * np.square(x / 2)


class Wide(Marginal):
    def logpdf(self, x):
        return -0.5 * np.square(x / 4)


def near(simulated, observed):
    return abs(simulated["y"] - observed["y"])


def run(path, *, size=30, distance=None, generations=3, **options):
    problem = problems.problem(**({} if distance is None else {"distance": distance}))
    sampler = mpiabc.ABCSMC(problem, size, seed=1, **options)
    return sampler.run(path / "run.db", generations=generations, scheduler="serial")


BROKEN = {  # an option of a run, and what is reported
    "rows of a proposal": ({"kernel": Fits(Leaning)}, "logpdf of the kernel Fits gives"),
    "another fit of a kernel": ({"kernel": Fits(Wandering)}, "fit of the kernel Fits gives another proposal"),
    "a density by chance": ({"kernel": Fits(Fickle)}, "logpdf of the kernel Fits draws NumPy's"),
    "rows of a distance": ({"distance": Relative()}, "rows of the distance Relative gives"),
    "a distance by chance": ({"distance": Jumping()}, "rows of the distance Jumping draws NumPy's"),
    "a distance that goes on": ({"distance": Drifting()}, "rows of the distance Drifting gives"),
    "another fit of a distance": ({"distance": Rescaling()}, "fit of the distance Rescaling gives another"),
    "another fit of a predictor": (
        {"distance": mpiabc.Predicted(Guessing())},
        "fit of the distance Predicted gives another",
    ),
    "a threshold that remembers": ({"threshold": Counting()}, "epsilon of the threshold Counting gives"),
    "a size that remembers": ({"size": Counting()}, "size of the rule Counting gives"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_run_tells_which_part_breaks_which_promise_once(what, tmp_path, caplog):
    options, message = BROKEN[what]
    run(tmp_path, **options)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message in line for line in said].count(True) == 1
    assert not any("the simulator, its summary" in line or "array(" in line for line in said)


GOOD = {
    "ours": {},
    "theirs": {
        "kernel": Fits(),
        "distance": Huber(),
        "threshold": Halfway(0.2),
        "size": rule(size=lambda self, generation, previous: 30),
    },
    "theirs, with names of ours": {"kernel": Fits(Likewise)},
}


@pytest.mark.parametrize("whose", GOOD)
def test_parts_that_keep_their_promises_are_not_spoken_of_and_ours_not_even_asked(
    whose, tmp_path, caplog, monkeypatch
):
    asked = []
    for name in ("of_answer", "of_fit", "of_rows", "check_draws"):
        look = getattr(promises, name)
        monkeypatch.setattr(promises, name, lambda *args, look=look: asked.append(look) or look(*args))
    run(tmp_path, **GOOD[whose])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert bool(asked) == (whose != "ours")


@pytest.mark.parametrize(
    "options",
    [
        lambda: GOOD["theirs"],
        lambda: {"threshold": Counting()},
        lambda: {"threshold": Generating()},
        lambda: {"size": Counting()},
        lambda: {"kernel": Widening()},
    ],
)
def test_looking_at_a_part_changes_no_population(options, tmp_path, monkeypatch):
    """Not of one that remembers how often it was asked, either."""
    looked = run(tmp_path, **options())
    monkeypatch.setattr("mpiabc.inspection.is_ours", lambda part: True)
    (tmp_path / "other").mkdir()
    assert problems.digests(run(tmp_path / "other", **options())) == problems.digests(looked)


def test_a_copy_has_a_state_of_its_own_and_shares_large_arrays():
    part = rule()
    part.seen, part.table = [1], {"all": np.zeros(1 << 17), "few": np.zeros(3)}
    other = copied(part)
    other.seen.append(2)
    other.table["few"][0] = 1.0
    assert part.seen == [1]
    assert not part.table["few"].any()
    assert other.table["all"] is part.table["all"]


def test_a_look_says_nothing_of_rows_that_are_made_up(tmp_path):
    problem = mpiabc.Problem(
        {"mu": mpiabc.Normal(0, 1)}, lambda theta, rng: {"y": 1e5}, {"y": 1e5}, distance=Positive()
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mpiabc.ABCSMC(problem, 9, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert not [w for w in caught if "in log" in str(w.message)]


def test_what_takes_long_is_not_asked_again(tmp_path, monkeypatch):
    fits, rows = [], []

    class Slow(Fits):
        def fit(self, population):
            fits.append(population.generation)
            return super().fit(population)

    class Dear(Absolute):
        def rows(self, simulated, observed):
            rows.append(len(simulated))
            return super().rows(simulated, observed)

    monkeypatch.setattr("mpiabc.inspection._LONG", -1.0)
    monkeypatch.setattr("mpiabc.inspection._ROWS", 0.0)
    run(tmp_path, kernel=Slow(), distance=Dear())
    assert fits == [0, 1]
    assert max(rows) == 1  # a look asks for many together


class Static:
    """Threshold and kernel in one, of which there is no object."""

    @staticmethod
    def epsilon(generation, previous):
        return 4.0 - generation

    @classmethod
    def fit(cls, population):
        return Around(population)


class StaticPredictor:
    @classmethod
    def fit(cls, theta, summaries):
        return cls

    @staticmethod
    def predict(summaries):
        return summaries[:, :1]


class StaticDistance:
    @staticmethod
    def rows(simulated, observed):
        return np.abs(simulated - observed).sum(axis=1)


class Answering:
    """Whatever is asked for, it has."""

    def __getattr__(self, name):
        return 0

    def __call__(self, simulated, observed):
        return near(simulated, observed)


class Foreign:
    """A callable whose `is_adaptive` is a method, as of other packages."""

    def is_adaptive(self):
        return False

    def __call__(self, simulated, observed):
        return near(simulated, observed)


class Data(dict):
    """What a simulator returns, made by its class, and called by others."""

    def __init__(self, theta, rng):
        super().__init__(y=theta["mu"] + rng.standard_normal())

    def __call__(self, name):
        return self[name]


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": Static},
        {"kernel": Static},
        {"distance": StaticDistance},
        {"distance": mpiabc.Predicted(StaticPredictor)},
        {"distance": Answering()},
        {"distance": Foreign()},
    ],
)
def test_what_can_be_called_as_it_is_is_not_refused(options, tmp_path):
    assert len(run(tmp_path, generations=2, **options)) == 2


def test_a_decorator_may_take_other_arguments_than_what_it_wraps(tmp_path):
    def of_numbers(function):
        @functools.wraps(function)
        def of_data(one, other):
            return function(one["y"], other["y"], 2.0)

        return of_data

    def of_mean(function):
        @functools.wraps(function)
        def of_theta(theta, rng):
            return {"y": function(theta["mu"], 1.0, rng)}

        return of_theta

    simulate = of_mean(lambda mean, sd, rng: rng.normal(mean, sd))
    distance = of_numbers(lambda x, y, p: abs(x - y) ** p)
    problem = mpiabc.Problem({"mu": mpiabc.Normal(0, 1)}, simulate, {"y": 0.0}, distance=distance)
    sampler = mpiabc.ABCSMC(problem, 9, seed=1)
    assert len(sampler.run(tmp_path / "run.db", generations=1, scheduler="serial")) == 1


@pytest.mark.parametrize("value", [3.0, None, [1, 2, 3]])
def test_attributes_of_parts_are_their_own(value, tmp_path):
    """Whatever these words mean in our parts."""

    def named(base, *names):
        return type("Mine", (base,), dict.fromkeys(names, value))

    distance = named(Absolute, "parts", "doubts")
    distance.fit = lambda self, sample, observed: self
    threshold = named(object, "parts", "end")
    threshold.epsilon = lambda self, generation, previous: None if generation > 1 else 4.0 - generation
    kernel = named(Fits, "parts")(named(Around, "parts", "proposals", "priors"))
    history = run(tmp_path, kernel=kernel, distance=distance(), threshold=threshold())
    assert history.reason == "threshold: Mine gives None for generation 2"


def test_a_class_of_data_is_a_simulator():
    assert mpiabc.Problem({"mu": mpiabc.Normal(0, 1)}, Data, {"y": 0.0}).simulate is Data


UNUSABLE = {  # what is called otherwise than it is written, or gives something else
    "no epsilon": ({"threshold": rule()}, r"the threshold Mine has no method epsilon, expected epsilon\(gen"),
    "epsilon is a number": ({"threshold": rule(epsilon=3.0)}, r"has epsilon = 3.0, which cannot be called"),
    "epsilon of one": (
        {"threshold": rule(epsilon=lambda self, generation: 1.0)},
        r"the threshold Mine has epsilon\(generation\), expected epsilon\(generation, previous\)",
    ),
    "no epsilon at first": (
        {"threshold": rule(epsilon=lambda self, generation, previous: None)},
        "the threshold Mine gives None as the epsilon of generation 0",
    ),
    "no size": ({"size": rule()}, r"with a method size\(generation, previous\)"),
    "size of one": (
        {"size": rule(size=lambda self, generation: 30)},
        r"the rule for sizes Mine has size\(generation\), expected size\(generation, previous\)",
    ),
    "no fit": ({"kernel": rule()}, r"the kernel Mine has no method fit, expected fit\(population\) or fit"),
    "fit of none": ({"kernel": rule(fit=lambda self: 1)}, r"the kernel Mine has fit\(\), expected fit\(pop"),
    "fit of three": ({"kernel": rule(fit=lambda self, a, b, c: 1)}, r"the kernel Mine has fit\(a, b, c\)"),
    "fit gives nothing": (
        {"kernel": rule(fit=lambda self, population: None)},
        r"fit of the kernel Mine gave None, expected a proposal with sample\(n, rng\) and logpdf\(theta\)",
    ),
    "sample without rng": (
        {"kernel": proposal(sample=lambda self, n: np.zeros((n, 1)))},
        r"the proposal Mine has sample\(n\), expected sample\(n, rng\)",
    ),
    "sample is flat": (
        {"kernel": proposal(sample=lambda self, n, rng: rng.random(n))},
        r"sample\(256, rng\) of the kernel Fits's proposal Mine gave shape \(256,\), expected \(256, 1\)",
    ),
    "logpdf of nothing": (
        {"kernel": proposal(logpdf=lambda self: 0.0)},
        r"the proposal Mine has logpdf\(\), expected logpdf\(theta\)",
    ),
    "logpdf is one number": (
        {"kernel": proposal(logpdf=lambda self, theta: 0.0)},
        r"logpdf of the kernel Fits's proposal Mine gave shape \(\), expected \(256,\)",
    ),
    "logpdf gives nothing": (
        {"kernel": proposal(logpdf=lambda self, theta: None)},
        r"logpdf of the kernel Fits's proposal Mine gave None, expected \(256,\)",
    ),
    "rows of one": (
        {"distance": rule(rows=lambda self, simulated: 1.0)},
        r"the distance Mine has rows\(simulated\), expected rows\(simulated, observed\)",
    ),
    "a distance of one": (
        {"distance": lambda simulated: 1.0},
        r"the distance is <lambda>\(simulated\), expected \(simulated, observed\)",
    ),
    "fit of a sample alone": (
        {"distance": type("Mine", (Absolute,), {"fit": lambda self, sample: self})()},
        r"the distance Mine has fit\(sample\), expected fit\(sample, observed\)",
    ),
    "a predictor that fits statistics alone": (
        lambda: {
            "distance": mpiabc.Predicted(
                rule(fit=lambda self, summaries: self, predict=lambda self, summaries: summaries)
            )
        },
        r"the predictor Mine has fit\(summaries\), expected fit\(theta, summaries\)",
    ),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_part_that_cannot_be_used_is_refused_in_a_sentence_that_says_what_is_expected(what, tmp_path):
    options, message = UNUSABLE[what]
    with pytest.raises(mpiabc.ProblemError, match=message) as error:
        run(tmp_path, **(options() if callable(options) else options))
    assert "\n" not in str(error.value)


def test_a_density_that_is_one_number_at_a_later_generation_is_a_failure_and_no_weight(tmp_path):
    class Late(Around):
        is_rowwise = True

        def __init__(self, population):
            super().__init__(population)
            self.is_late = population.generation > 0

        def logpdf(self, theta):
            return -1.0 if self.is_late else super().logpdf(theta)

    with pytest.raises(mpiabc.Error, match=r"logpdf of the proposal gave shape \(\), expected \(\d+,\)"):
        run(tmp_path, kernel=Fits(Late))


def test_the_end_of_a_run_names_the_threshold_that_has_no_more(tmp_path):
    once = rule(epsilon=lambda self, generation, previous: None if generation else 3.0)
    assert run(tmp_path, threshold=once).reason == "threshold: Mine gives None for generation 1"


def test_an_array_as_a_distance_is_said_to_be_several_and_names_say_that_it_is_meant(tmp_path, caplog):
    for i, gives in enumerate([lambda d: np.array([d, 2 * d]), lambda d: {"a": d, "b": 2 * d}]):
        (tmp_path / str(i)).mkdir()
        caplog.clear()
        run(tmp_path / str(i), distance=lambda s, o, gives=gives: gives(near(s, o)), generations=1)
        said = ["the distance gives 2 numbers" in record.getMessage() for record in caplog.records]
        assert said.count(True) == 1 - i


KEPT = {
    "a kernel of ours": lambda: testing.check_kernel(mpiabc.Gaussian(defensive=0.1)),
    "that kernel for a prior": lambda: testing.check_kernel(
        mpiabc.OLCM(free=True), mpiabc.Prior(x=mpiabc.Uniform(-9, 9), y=mpiabc.Uniform(-9, 9))
    ),
    "a kernel of theirs": lambda: testing.check_kernel(Student()),
    "a kernel for a population": lambda: testing.check_kernel(
        Fits(), population=problems.population(np.eye(3), np.ones(3) / 3, np.ones(3), np.zeros((3, 1)))
    ),
    "a distance of ours": lambda: testing.check_distance(mpiabc.PNorm(scale="mad")),
    "a distance of rows": lambda: testing.check_distance(Huber()),
    "a callable": lambda: testing.check_distance(dissimilarity, {"y": [1.0, 2, 4]}, {"y": [1.0, 2, 3]}),
    "a threshold": lambda: testing.check_threshold(Halfway(0.2)),
    "a threshold that ends": lambda: testing.check_threshold(mpiabc.Listed([2, 1])),
    "a size": lambda: testing.check_size(mpiabc.sizes.ESS(50)),
    "a marginal": lambda: testing.check_prior(Marginal()),
    "a prior": lambda: testing.check_prior({"a": Marginal(), "b": mpiabc.Uniform(0, 1)}),
}


@pytest.mark.parametrize("what", KEPT)
def test_a_part_that_keeps_its_promises_passes(what):
    KEPT[what]()


FOUND = {
    "rows of a proposal": (lambda: testing.check_kernel(Fits(Leaning)), "for a row alone"),
    "another fit": (lambda: testing.check_kernel(Fits(Wandering)), "gives another proposal"),
    "another density": (lambda: testing.check_kernel(Fits(Narrow)), "does not seem to belong to its sample"),
    "no fit": (lambda: testing.check_kernel(rule()), "has no method fit"),
    "flat draws": (
        lambda: testing.check_kernel(proposal(sample=lambda self, n, rng: rng.random(n))),
        r"gave shape \(256,\), expected \(256, 2\)",
    ),
    "rows of a distance": (lambda: testing.check_distance(Relative()), "for a row alone"),
    "chance": (lambda: testing.check_distance(Jumping()), "draws NumPy's"),
    "below 0": (lambda: testing.check_distance(Negative()), "expected numbers >= 0"),
    "one for all rows": (
        lambda: testing.check_distance(rule(rows=lambda self, simulated, observed: 1.0)),
        r"gave shape \(\) for 64 rows, expected \(64,\)",
    ),
    "another fit of a distance": (lambda: testing.check_distance(Rescaling()), "gives another distance"),
    "data that are not given": (lambda: testing.check_distance(near), "give check_distance"),
    "a callable by chance": (
        lambda: testing.check_distance(lambda a, b: np.random.random(), 1.0, 2.0),
        "draws NumPy's",
    ),
    "a threshold that remembers": (lambda: testing.check_threshold(Counting()), "asked the same again"),
    "a threshold that rises": (lambda: testing.check_threshold(Rising()), "it rises from"),
    "a size that remembers": (lambda: testing.check_size(Counting()), "asked the same again"),
    "a size that is none": (
        lambda: testing.check_size(rule(size=lambda self, generation, previous: 0.5)),
        "whole number of at least 2",
    ),
    "a marginal's density": (lambda: testing.check_prior(Wide()), "the marginal x does not seem to belong"),
    "a marginal without rng": (
        lambda: testing.check_prior(type("Mine", (Marginal,), {"rvs": lambda self, size: 0.0})()),
        r"the distribution of 'x', Mine has rvs\(size\), expected rvs\(size=, random_state=\)",
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_a_part_that_does_not_is_named_with_what_is_wrong(what):
    check, message = FOUND[what]
    with pytest.raises(mpiabc.ProblemError, match=message):
        check()


def test_what_a_part_raises_itself_comes_through():
    class Raising(Around):
        def logpdf(self, theta):
            raise ArithmeticError("no such density")

    with pytest.raises(ArithmeticError, match="no such density"):
        testing.check_kernel(Fits(Raising))


def test_random_numbers_of_the_process_are_left_as_they_were():
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    with pytest.raises(mpiabc.ProblemError):
        testing.check_distance(Jumping())
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


def test_what_was_measured_is_what_the_sampler_would_have_measured(tmp_path):
    """A made-up row may be one that a distance cannot take: a run says nothing of that."""

    class Careful(Absolute):
        def rows(self, simulated, observed):
            if (np.abs(simulated) > 1e6).any() or len(simulated) > 8:
                raise ValueError("not such data")
            return super().rows(simulated, observed)

    plain = run(tmp_path, distance=Absolute())
    (tmp_path / "other").mkdir()
    other = run(tmp_path / "other", distance=Careful())
    assert problems.digests(plain) == problems.digests(other)
    assert replace(plain[-1], seconds=0.0).epsilon == other[-1].epsilon
