"""Structure: data become float64 with nothing lost, by label or position; nobody damages the original."""

import copy
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mpiabc
from mpiabc.protection import protected
from mpiabc.structure import Structure, StructureMismatchError, number
from tests import problems
from tests.conftest import environment

STRUCTURES = {
    "float": (2.0, "float"),
    "array": (np.arange(6.0).reshape(2, 3), "array (2, 3)"),
    "dict": ({"a": 1.0, "b": [1.0, 2.0]}, '{"a": float, "b": array (2,)}'),
    "dict of floats": ({"a": 1.0, "b": 2}, '{"a": float, "b": float}'),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_structure_flattens_and_comes_back(kind):
    data, described = STRUCTURES[kind]
    structure = Structure(data)
    assert str(structure) == described
    back = structure.unflatten(structure.row(data))
    np.testing.assert_equal(
        back,
        {k: np.array(v) if np.ndim(v) else v for k, v in data.items()} if isinstance(data, dict) else data,
    )
    assert len(structure.labels()) == structure.size


@pytest.mark.parametrize("kind", STRUCTURES)
def test_float_array_and_dict_outputs_run(kind, tmp_path):
    data, _ = STRUCTURES[kind]

    def simulate(theta, rng):
        shift = theta["mu"]
        if isinstance(data, dict):
            return {name: np.asarray(part) + shift for name, part in data.items()}
        return data + shift

    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal()), simulate, data)
    history = mpiabc.ABCSMC(problem, 20, seed=1).run(tmp_path / "run.db", generations=3, scheduler="serial")
    assert history[-1].summaries.shape == (20, Structure(data).size)
    assert abs(history[-1].mean()["mu"]) < 0.5


class Astropy(np.ndarray):
    """As astropy.units.Quantity is made: an array with a unit."""

    unit = "m"


class Pint:
    """As pint.Quantity is made: it would become an array with a warning."""

    def __init__(self, magnitude, units="meter"):
        self.magnitude, self.units = magnitude, units

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.magnitude, dtype)


MANY = 2**53 + 1  # the first whole number that is no float64

LOSING = {
    "masked array": (np.ma.masked_array([1.0, 2.0], [False, True]), "would lose its mask"),
    "masked array, nothing masked": (np.ma.masked_array([1.0, 2.0]), "would lose its mask"),
    "masked": (np.ma.masked, "would lose its mask"),
    "masked in a list": ([np.ma.masked, 1.0], "would lose its mask"),
    "complex": (1 + 0j, "imaginary part"),
    "complex scalar": (np.complex64(1), "imaginary part"),
    "complex array": (np.array([1, 2j]), "imaginary part"),
    "complex in a list": ([1.0, 2j], "imaginary part"),
    "datetime64": (np.datetime64("2020-01-01"), "dates and times"),
    "timedelta64 array": (np.array([1, 2], "m8[D]"), "dates and times"),
    "date": (date(2020, 1, 1), "dates and times"),
    "datetime in a list": ([datetime(2020, 1, 1)], "dates and times"),
    "timedelta": (timedelta(3), "dates and times"),
    "dates of pandas": (pd.Series(pd.date_range("2020-01-01", periods=2, tz="UTC")), "dates and times"),
    "int": (MANY, f"{MANY} would lose its last digits"),
    "int64": (np.int64(MANY), "last digits"),
    "uint64": (np.uint64(2**64 - 1), "last digits"),
    "int64 array": (np.array([1, MANY]), "last digits"),
    "negative int64 array": (np.array([1, -MANY]), "last digits"),
    "int with floats": ([1.5, MANY], "last digits"),
    "int64 with floats": ([1.5, np.int64(MANY)], "last digits"),
    "ints in an object array": (np.array([MANY, 2**70 + 1], object), "last digits"),
    "int with floats in a frame": (pd.DataFrame({"a": [1.5], "b": [MANY]}), "last digits"),
    "int beyond all floats": (10**400, "too large"),
    "longdouble beyond all floats": (np.longdouble("1e308") * 10, "too large"),
    "decimal beyond all floats": (Decimal("1e400"), "too large"),
    "text": ("12", "text is no number"),
    "bytes": (b"12", "text is no number"),
    "text array": (np.array(["1", "2"]), "text is no number"),
    "bytes array": (np.array([b"1", b"2"]), "text is no number"),
    "text in an object array": (np.array(["1", 2.0], object), "text is no number"),
    "text in a list": ([1.0, "2"], "text is no number"),
    "text of pandas": (pd.Series(["1", "2"]), "text is no number"),
    "None": (None, "None is no number"),
    "None in a list": ([1.0, None], "None is no number"),
    "None in an object array": (np.array([1.0, None]), "None is no number"),
    "astropy": (np.ones(2).view(Astropy), "Astropy would lose its unit 'm'.*to_value"),
    "astropy in a list": ([np.ones(()).view(Astropy)], "would lose its unit"),
    "pint": (Pint(1.0), "Pint would lose its unit 'meter'.*m_as"),
    "pint in an object array": (np.array([Pint(1.0), 1.0], object), "would lose its unit"),
    "pint in xarray": (xr.DataArray(np.array([Pint(1.0)], object)), "would lose its unit"),
    "structured array": (np.zeros(2, [("a", float)]), "a structured array"),
    "set": ({1.0, 2.0}, "set is no number"),
    "dict in a dict": ({"z": 1.0}, "all names in one dict"),
    "items of several shapes": ([[1.0], [1.0, 2.0]], "different shapes"),
    "arrays in an object array": (np.array([[1.0], None, 2], object)[[0, 2]], "different shapes"),
    "another object": (object(), "object is no number"),
    "a class": (float, "type is no number"),
}
if np.finfo(np.longdouble).max == np.finfo(float).max:  # not on all machines
    del LOSING["longdouble beyond all floats"]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("what", LOSING)
def test_what_would_lose_something_is_refused(what):
    """On every path: as observed and simulated data, scalar and array, one and several, row and rows."""
    value, sentence = LOSING[what]
    with pytest.raises(
        mpiabc.ProblemError, match=rf"observed data of 'y' are .*expected a number.*{sentence}"
    ):
        Structure({"x": 1.0, "y": value})
    for one in (1.0, np.ones(2)):
        for data, observed in [({"y": value}, {"y": one}), ({"x": 1.0, "y": value}, {"x": 1.0, "y": one})]:
            with pytest.raises(StructureMismatchError, match=f"it is .*, expected .*{sentence}") as error:
                Structure(observed).flatten(data)
            assert "\n" not in str(error.value)
        with pytest.raises(StructureMismatchError, match=f"vectorised.*{sentence}"):
            Structure({"y": one}).rows({"y": value}, 2)
        if not isinstance(value, dict):
            with pytest.raises(StructureMismatchError, match=f"it is .*, expected .*{sentence}"):
                Structure(one).flatten(value)
    with pytest.raises(StructureMismatchError, match=f"the distance gave .*{sentence}"):
        number(value)


class Device:
    """An array that refuses `__array__` as those on a GPU do, or has none."""

    def __init__(self, values, array=None):
        self.values = values
        if array:
            self.__array__ = array

    def __dlpack__(self, **options):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class Elsewhere:
    """An array that has `__array__` only."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2], dtype)


class Refusing(Device):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion\nis not allowed")


class Tensor(Refusing):
    """As PyTorch's that lie on a GPU, or have a gradient: only a detached copy here is an array."""

    def __init__(self, values, width=np.float64):
        super().__init__(None)
        self.numbers, self.width, self.is_here = values, width, False

    def detach(self):
        return Tensor(self.numbers, self.width)

    def cpu(self):
        here = Tensor(self.numbers, self.width)
        here.is_here = True
        return here

    def is_floating_point(self):
        return self.width is None or np.issubdtype(self.width, np.floating)

    def double(self):
        assert self.is_here
        return np.array(self.numbers, np.float64)

    def __array__(self, dtype=None, copy=None):
        if not self.is_here or self.width is None:
            raise TypeError("can't convert it to numpy")
        return np.array(self.numbers, self.width)


class Cupy(Refusing):
    """As CuPy's: it wants to be asked by its own name."""

    def get(self):
        return np.array(TWO, np.float32)


TWO = [1.0, 2.0]
KEEPING = {
    "float": (1.5, 1.5),
    "narrow floats": ([np.float32(1.5), np.float16(2)], [1.5, 2.0]),
    "wide float": (np.longdouble(1.5), 1.5),
    "wide floats": (np.array(TWO, np.longdouble), TWO),
    "other byte order": (np.array(TWO, ">f8"), TWO),
    "bools": ([True, np.False_], [1.0, 0.0]),
    "ints": ([1, np.int8(2), np.uint64(3)], [1.0, 2.0, 3.0]),
    "exact int beyond 2**53": (2**60, 2.0**60),
    "exact uint64": (np.array([2**63], np.uint64), [2.0**63]),
    "decimal": (Decimal("0.1"), 0.1),
    "fraction": (Fraction(1, 3), 1 / 3),
    "0-d array": (np.array(3), 3.0),
    "object array": (np.array([1, Fraction(1, 2)], object), [1.0, 0.5]),
    "tuple": ((1, 2.0), TWO),
    "range": (range(1, 3), TWO),
    "deque": (deque(TWO), TWO),
    "memory": (memoryview(np.array(TWO)), TWO),
    "nested": ([[1, 2.0], np.array(TWO)], [TWO, TWO]),
    "series": (pd.Series([1, 2]), TWO),
    "nullable series": (pd.Series([1, 2], dtype="Int64"), TWO),
    "frame": (pd.DataFrame({"a": [1.5], "b": [2**53]}), [[1.5, 2.0**53]]),
    "frame of one type": (pd.DataFrame({"a": [1, 2]}), [[1.0], [2.0]]),
    "xarray": (xr.DataArray(3.0), 3.0),
    "xarray that tells its unit": (xr.DataArray(TWO, attrs={"units": "K"}), TWO),
    "labels that are called so": (pd.Series(TWO, index=["unit", "units"]), TWO),
    "only __array__": (Elsewhere(), TWO),
    "only DLPack": (Device(np.array(TWO)), TWO),
    "DLPack where __array__ refuses": (Refusing(np.array(TWO)), TWO),
    "tensor on a GPU": (Tensor(TWO), TWO),
    "tensor of ints": (Tensor([1, 2], np.int64), TWO),
    "tensor of floats that NumPy does not know": (Tensor(TWO, None), TWO),
    "CuPy": (Cupy(None), TWO),
}


@pytest.mark.parametrize("what", KEEPING)
def test_what_loses_nothing_is_taken(what):
    value, expected = KEEPING[what]
    for data in (value, {"y": value}, {"x": 1.0, "y": value}):
        structure = Structure(data)
        row = structure.row(data)
        assert row.dtype == np.float64
        np.testing.assert_array_equal(
            row[structure.slices["y" if isinstance(data, dict) else ""]], np.ravel(expected)
        )


def test_an_array_that_cannot_be_had_says_why():
    with pytest.raises(
        mpiabc.ProblemError, match=r"Refusing gives no NumPy array .implicit conversion is not"
    ):
        Structure(Refusing(None))


def test_whole_numbers_of_a_gpu_lose_no_digits():
    with pytest.raises(mpiabc.ProblemError, match="would lose its last digits"):
        Structure(Tensor([2**53 + 1], np.int64))


@pytest.mark.parametrize("text", ["12", np.str_("12")])
@pytest.mark.parametrize("on_error", ["raise", "reject"])
def test_lost_meaning_ends_a_run(text, on_error, tmp_path):
    """Before, the text "12" was the number 12."""
    problem = problems.problem(lambda theta, rng: {"y": text}, on_error=on_error)
    with pytest.raises(mpiabc.ProblemError, match="in 'y', text is no number"):
        mpiabc.ABCSMC(problem, 10).run(tmp_path / "run.db", generations=1, scheduler="serial")


def test_what_makes_up_missing_names_is_refused():
    for made in (Counter(z=3), defaultdict(float, z=3.0)):
        with pytest.raises(StructureMismatchError, match='"z"'):
            Structure({"y": 1.0}).flatten(made)
    with pytest.raises(StructureMismatchError):
        Structure({"y": 1.0, "x": 1.0}).flatten(defaultdict(float, z=3.0, x=1.0))
    hidden = xr.Dataset({"z": 3.0}, coords={"y": 2.0})  # which says that it holds "y"
    with pytest.raises(StructureMismatchError, match='"z"'):
        Structure({"y": 1.0}).flatten(hidden)


def test_mappings_and_labelled_rows_of_floats_are_taken_by_name():
    expected = {"a": 1.0, "b": 2.0}
    for data in (
        OrderedDict(b=2.0, a=1.0),
        MappingProxyType({"b": 2, "a": 1}),
        pd.Series({"b": 2.0, "a": 1.0}),
    ):
        assert Structure(expected).flatten(data) == TWO
    frame = pd.DataFrame({"b": [2.0, 4.0], "a": [1.0, 3.0]})
    assert Structure(expected).rows(frame, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("empty", [[], {"y": []}, np.zeros((2, 0)), {"y": np.empty(0), "z": []}])
def test_observed_data_without_a_number_are_refused(empty):
    with pytest.raises(mpiabc.ProblemError, match="observed data hold no number"):
        Structure(empty)
    assert Structure({"y": [], "z": 1.0}).size == 1


def test_data_nested_without_end_are_refused():
    data = [1.0]
    data.append(data)
    with pytest.raises(mpiabc.ProblemError, match="without end"):
        Structure(data)
    assert len(protected(data)()) == 2


# Labelled data: (observed, the same in another order, the same without labels), each with 6 numbers.

VALUES = np.arange(6.0).reshape(2, 3)
FRAME = pd.DataFrame(VALUES, index=["r", "s"], columns=["a", "b", "c"])
ARRAY = xr.DataArray(VALUES, dims=("t", "x"), coords={"t": [10, 20], "x": ["a", "b", "c"]})
SERIES = pd.Series(VALUES.ravel(), index=list("abcdef"))

LABELLED = {
    "series": (SERIES, SERIES[::-1], SERIES.to_numpy()),
    "part of a dict": ({"y": SERIES}, {"y": SERIES[::-1]}, {"y": SERIES.tolist()}),
    "index of pairs": (FRAME.stack(), FRAME[["c", "a", "b"]].stack(), VALUES.ravel()),
    "rows and columns": (FRAME, FRAME.loc[["s", "r"], ["b", "c", "a"]], VALUES),
    "default index": (pd.Series(VALUES.ravel()), pd.Series(VALUES.ravel())[::-1], VALUES.ravel()),
    "data array": (ARRAY, ARRAY[::-1, [2, 0, 1]], VALUES),
    "dims in another order": (ARRAY, ARRAY.T, VALUES),
    "dims and labels": ({"y": ARRAY}, {"y": ARRAY[:, ::-1].T}, {"y": VALUES}),
    "dims without labels": (ARRAY.drop_vars(["t", "x"]), ARRAY.drop_vars(["t", "x"]).T, VALUES),
    "dataset": (xr.Dataset({"y": ARRAY}), xr.Dataset({"y": ARRAY[::-1].T}), {"y": VALUES}),
    "one of pandas, one of xarray": (FRAME.set_axis([10, 20]), ARRAY[::-1, ::-1], VALUES),
}


@pytest.mark.parametrize("what", LABELLED)
def test_labelled_data_are_compared_by_label(what):
    observed, other, plain = LABELLED[what]
    structure = Structure(observed)
    for data in (observed, other, plain):
        assert structure.row(data).tolist() == list(range(6))
        assert mpiabc.PNorm()(data, observed) == 0
    assert Structure(plain).row(observed).tolist() == list(range(6))  # one is plain: by position
    assert str(structure) == str(Structure(plain))


def test_labels_of_another_order_once_gave_a_distance(tmp_path):
    observed = pd.Series({"a": 100.0, "b": 2.0})
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal()), lambda theta, rng: pd.Series({"b": 2.0, "a": 100.0}), observed
    )
    history = mpiabc.ABCSMC(problem, 5, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert history[0].distances.tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (SERIES.rename({"c": "z"}), "'c' is missing and 'z' is not among them"),
        (SERIES.rename({"c": "a"}), "'a' comes twice"),
        (SERIES[["a", "b"]], "'c' is missing"),
        (pd.concat([SERIES, pd.Series({"z": 1.0})]), "'z' is not among them"),
        (SERIES.reset_index(drop=True), "'a' is missing and 0 is not among them"),
    ],
)
def test_other_labels_are_refused_and_the_first_is_named(data, sentence):
    for observed, simulated in [(SERIES, data), ({"y": SERIES}, {"y": data})]:
        with pytest.raises(
            StructureMismatchError, match=f"the labels.*are not those of the observed.*{sentence}"
        ):
            Structure(observed).flatten(simulated)


def test_other_axes_are_refused():
    for data, sentence in [
        (FRAME.rename(columns={"b": "z"}), "'b' is missing"),
        (ARRAY.assign_coords(t=[10, 30]), "20 is missing and 30 is not among them"),
        (ARRAY.rename(t="time"), "dimension 't' is missing and dimension 'time' is not"),
    ]:
        observed = FRAME if isinstance(data, pd.DataFrame) else ARRAY
        with pytest.raises(StructureMismatchError, match=sentence):
            Structure(observed).flatten(data)
    with pytest.raises(StructureMismatchError, match=r"it is array \(6,\), expected array \(2, 3\)"):
        Structure(FRAME).flatten(SERIES)


def test_labels_that_repeat_are_taken_where_they_are_the_same():
    observed = pd.Series([1.0, 2.0, 3.0], index=["a", "a", "b"])
    assert Structure(observed).row(observed).tolist() == [1, 2, 3]
    with pytest.raises(StructureMismatchError, match="'a' comes twice"):
        Structure(observed).row(observed[::-1])


def test_vectorised_labels_are_those_behind_the_simulations():
    n, order = 4, list("fbacde")
    values = np.arange(6.0 * n).reshape(n, 6)
    frame = pd.DataFrame(values, columns=SERIES.index)
    structure = Structure(SERIES)
    for data in (frame, frame[order], frame[order].set_axis(list("wxyz")), values):
        np.testing.assert_array_equal(structure.rows(data, n), values)
    with pytest.raises(StructureMismatchError, match="'b' is missing"):
        structure.rows(frame.drop(columns="b"), n)
    array = xr.concat([ARRAY, ARRAY + 6], dim="simulation")
    for data in (array, array.transpose("simulation", "x", "t"), array[:, ::-1]):
        np.testing.assert_array_equal(Structure({"y": ARRAY}).rows({"y": data}, 2).ravel(), np.arange(12.0))
    with pytest.raises(StructureMismatchError, match="dimension"):
        Structure(ARRAY).rows(array.transpose("t", "simulation", "x"), 2)
    scalars = {"y": pd.Series([1.0, 2.0], index=["p", "q"])}
    assert Structure({"y": 0.0}).rows(scalars, 2).tolist() == [[1.0], [2.0]]


def test_labelled_places_are_named_by_their_labels():
    assert Structure(pd.Series({"a": 1.0, "b": 2.0})).labels() == ["y[a]", "y[b]"]
    assert Structure({"z": FRAME}).labels()[:4] == ["z[r,a]", "z[r,b]", "z[r,c]", "z[s,a]"]
    assert Structure(ARRAY.drop_vars("t")).labels()[2:4] == ["y[0,c]", "y[1,a]"]
    assert Structure({"y": 1.0, "z": [1.0, 2.0]}).labels() == ["y", "z[0]", "z[1]"]


def test_weights_of_other_places_are_refused():
    for weights, observed, sentence in [
        ({"b": [1.0, 2.0], "a": 3.0}, {"a": 1.0, "b": [1.0, 2.0]}, "weight of 'b.0.' where .* have 'a'"),
        (SERIES[::-1], SERIES, r"weight of 'y\[f\]' where the observed data have 'y\[a\]'"),
    ]:
        with pytest.raises(mpiabc.ProblemError, match=sentence):
            mpiabc.Problem(
                mpiabc.Prior(mu=mpiabc.Normal()), print, observed, distance=mpiabc.PNorm(weights=weights)
            )
    assert mpiabc.PNorm(1, weights=SERIES)(SERIES + 1, SERIES) == SERIES.sum()
    assert mpiabc.PNorm(1, weights=SERIES.tolist())(SERIES + 1, SERIES) == SERIES.sum()


def test_neither_pandas_nor_xarray_is_imported():
    program = (
        "import sys; from mpiabc.protection import protected; from mpiabc.structure import Structure; "
        "Structure({'y': [1.0]}).row({'y': (1,)}); protected([1])(); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pandas", "xarray", "polars", "astropy", "pint"} & set(loaded)


def test_what_is_given_back_is_a_copy():
    structure = Structure({"y": [1.0, 2.0], "z": 3.0})
    row = structure.row({"y": [1.0, 2.0], "z": 3.0})
    structure.unflatten(row)["y"][:] = 0
    assert row.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "one", [1.5, np.float64(1.5), np.float32(1.5), np.array(1.5), np.array([[1.5]]), [1.5]]
)
def test_one_number_is_a_distance(one):
    assert number(one) == 1.5
    assert type(number(one)) is float


@pytest.mark.parametrize(
    ("other", "described"),
    [(np.ones(2), r"array \(2,\)"), ([], r"array \(0,\)"), (None, "None"), ("1.5", "str")],
)
def test_anything_else_is_no_distance(other, described):
    with pytest.raises(
        StructureMismatchError, match=f"the distance gave {described}, expected one real number"
    ):
        number(other)


def test_infinity_and_nan_are_numbers():
    assert number(math.inf) == math.inf
    assert math.isnan(number(float("nan")))


def damage(data):
    """All that a careless user does to data, in place."""
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []:
        if isinstance(data[key], dict | list):
            damage(data[key])
        data[key] = "damaged"
    if isinstance(data, dict):
        data["more"] = 0
    elif isinstance(data, list):
        data.append(0)
    elif isinstance(data, set):
        data.clear()
    elif isinstance(data, pd.Series):
        data.iloc[:] = -1.0
    elif isinstance(data, pd.DataFrame):
        data.loc[:, "more"] = -1.0
    elif isinstance(data, xr.DataArray | xr.Dataset):
        data["more"] = -1.0
        (data if isinstance(data, xr.DataArray) else data["y"])[:] = -1.0
    elif isinstance(data, tuple):
        for item in data:
            damage(item)


class Own:
    """An object of a user's own."""

    def __init__(self):
        self.values = [1.0]

    def __eq__(self, other):
        return self.values == other.values


DAMAGED = {
    "dict": {"y": 1.0},
    "list": [1.0, [2.0]],
    "dict of lists": {"y": [1.0], "z": {"x": [2.0]}, "s": {1, 2}},
    "ordered dict": OrderedDict(y=[1.0]),
    "tuple": ([1.0], 2.0),
    "set": {1.0},
    "series": SERIES,
    "frame": FRAME,
    "data array": ARRAY,
    "dataset": xr.Dataset({"y": ARRAY}),
    "series in a dict": {"y": SERIES},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_users_do_to_protected_data_the_next_call_does_not_see(what):
    original = copy.deepcopy(DAMAGED[what])
    give = protected(original)
    for _ in range(2):
        given = give()
        assert type(given) is type(original)
        assert repr(given) == repr(DAMAGED[what])
        damage(given)
    damage(original)  # users may hold that one too
    assert repr(give()) == repr(DAMAGED[what])


def test_protected_arrays_are_read_only_views_of_one_copy():
    original = np.arange(4.0)
    give = protected({"y": original, "z": [original]})
    first, second = give(), give()
    assert first["y"] is not second["y"]
    assert np.shares_memory(first["y"], second["y"])
    assert not np.shares_memory(first["y"], original)
    with pytest.raises(ValueError, match="read-only"):
        first["y"] /= first["y"].sum()
    with pytest.raises(ValueError, match="read-only"):
        first["z"][0][0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        first["y"].flags.writeable = True
    original[:] = 0
    assert give()["y"].tolist() == [0, 1, 2, 3]


def test_arrays_that_nobody_can_write_are_not_copied(tmp_path):
    np.save(tmp_path / "large.npy", np.arange(4.0))
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    for array in (mapped, frozen, frozen[1:], np.frombuffer(b"12345678")):
        given = protected(array)()
        assert np.shares_memory(given, array)
        assert not given.flags.writeable
    writable = np.arange(4.0)
    view = writable.view()
    view.flags.writeable = False  # its memory can be written all the same
    for array in (view, np.load(tmp_path / "large.npy", mmap_mode="c"), np.frombuffer(bytearray(8))):
        assert not np.shares_memory(protected(array)(), array)


def test_what_is_protected_again_is_not_copied_again():
    once = protected({"y": np.arange(4.0)})()
    assert np.shares_memory(protected(once)()["y"], once["y"])


def test_protected_arrays_keep_their_layout():
    """A sum depends on it in the last bit."""
    for array in (np.ones((3, 4)), np.ones((3, 4)).T):
        assert protected(array)().strides == array.strides


def test_what_cannot_change_or_be_copied_is_given_as_it_is():
    generator = (i for i in ())
    for data in (1.5, "text", (1.0, (2.0, "x")), np.float64(2), Fraction(1, 2), generator):
        assert protected(data)() is data
    own = Own()
    given = protected(own)()
    assert given == own
    assert given.values is not own.values
