"""A sweep is the product of its lists: a directory for each combination, with what `--set` would have given."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.parameters.merge import MergeParams
from tasks.recipes.recipe import read_merge_params
from tasks.recipes.sweep import LIMIT, grid

OUT = Path("out")
LORE = MergeParams(method="lore")
TIES = MergeParams(method="ties", base="base")

numbers = st.lists(st.floats(-2, 2, allow_nan=False), min_size=1, max_size=6, unique=True)
shares = st.lists(st.integers(1, 50).map(lambda k: k / 50), min_size=1, max_size=6, unique=True)


def test_without_sweeps_there_is_the_one_merge_as_it_was_asked_for() -> None:
    assert grid(LORE, [], OUT) == {OUT: LORE}


def test_directories_are_named_after_what_varies() -> None:
    found = grid(LORE, ["merge.lam=0.2, .4", "merge.lore.combine=sum,mean", "merge.lore.anchor=mean"], OUT)
    assert [path.relative_to(OUT).as_posix() for path in found] == [
        "lam=0.2,lore.combine=sum,lore.anchor=mean",
        "lam=0.2,lore.combine=mean,lore.anchor=mean",
        "lam=0.4,lore.combine=sum,lore.anchor=mean",
        "lam=0.4,lore.combine=mean,lore.anchor=mean",
    ]
    assert list(grid(TIES, ["merge.ties.normalize=true,false"], OUT)) == [
        OUT / "ties.normalize=true",
        OUT / "ties.normalize=false",
    ]
    assert list(grid(LORE, ["merge.lam=null,1"], OUT)) == [OUT / "lam=null", OUT / "lam=1"]


@given(lam=numbers, ratio=shares)
@settings(max_examples=30)
def test_each_combination_is_what_set_gives(lam: list[float], ratio: list[float]) -> None:
    sweeps = [
        f"merge.lam={','.join(map(str, lam))}",
        f"merge.lore.rank_ratio={','.join(map(str, ratio))}",
    ]
    rest = ["merge.method=lore", "merge.lore.mu=0.7", "merge.on_nan=drop"]
    found = list(grid(read_merge_params(rest), sweeps, OUT).values())
    assert found == [
        read_merge_params([*rest, f"merge.lam={x}", f"merge.lore.rank_ratio={y}"]) for x in lam for y in ratio
    ]


def test_what_varies_over_the_model_stays_as_it_is() -> None:
    rest = ["merge.method=ties", "merge.base=b", "merge.ties.density=[{match: q, value: 0.1}, {value: 0.3}]"]
    [found] = grid(read_merge_params(rest), ["merge.lam=2"], OUT).values()
    assert found == read_merge_params([*rest, "merge.lam=2"])


@pytest.mark.parametrize(
    ("params", "sweeps", "sentence"),
    [
        (LORE, ["merge.lamm=1,2"], "--sweep: unknown key merge.lamm; did you mean lam?"),
        (LORE, ["merge.lam.x=1"], "--sweep: merge.lam"),
        (LORE, ["merge.lore=1,2"], "--sweep: merge.lore"),
        (LORE, ["merge.lore.mu=0,1"], "--sweep: merge.lore.mu: input should be greater than 0, but it is 0"),
        (LORE, ["merge.lore.combine=sum,summ"], "--sweep: merge.lore.combine: "),
        (LORE, ["merge.lam="], "--sweep merge.lam=: is no sweep; write it as merge.key=value,value"),
        (LORE, ["merge.lam=1,,2"], "write it as merge.key=value,value"),
        (LORE, ["merge.lam"], "write it as merge.key=value,value"),
        (LORE, ["merge=1"], "write it as merge.key=value,value"),
        (LORE, ["merge.=1"], "write it as merge.key=value,value"),
        (LORE, ["select.k=1,2"], "write it as merge.key=value,value"),
        (TIES, ["merge.weights=[1,1,1],[1,2,3]"], "[1 is no number or word; give the others with --set"),
        (LORE, ["merge.lam={gradient: 1}"], "{gradient: 1} is no number or word"),
        (LORE, ["merge.lam=*x"], "*x is no number or word"),
        (LORE, ["merge.lam=2020-01-01"], "2020-01-01 is no number or word"),
        (LORE, ["merge.lam=0.2,0.4,0.20"], "--sweep merge.lam: 0.2 is there twice; give each value once"),
        (LORE, ["merge.lore.tolerance=0.001,1e-3"], "merge.lore.tolerance: 1e-3 is there twice"),
        (LORE, ["merge.lam=1,2", "merge.lam=3"], "--sweep merge.lam: is given twice; put all values into one list"),
        (LORE, ["merge.method=lore,average"], "--sweep merge.method: all merges of a sweep share it"),
        (LORE, ["merge.base=a,b"], "--sweep merge.base: all merges of a sweep share it"),
        (LORE, ["merge.dtype=float32,float16"], "--sweep merge.dtype: all merges of a sweep share it"),
        (LORE, ["merge.device=cpu,cuda"], "--sweep merge.device: all merges of a sweep share it"),
        (LORE, ["merge.max_shard_size=1GB,2GB"], "--sweep merge.max_shard_size: all merges of a sweep share it"),
        (LORE, ["merge.on_nan=stop,drop"], "--sweep merge.on_nan: all merges of a sweep share it"),
        (TIES, ["merge.dare.p=0.1,0.2"], "--sweep merge.dare.p: method ties does not read it; leave it out"),
        (LORE, [f"merge.lam={','.join(map(str, range(LIMIT + 1)))}"], "--sweep: 101 combinations, and at most 100"),
        (LORE, ["merge.lam=1,2,3"] + [f"merge.lore.x{i}=1,2,3" for i in range(40)], "combinations, and at most 100"),
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(params: MergeParams, sweeps: list[str], sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        grid(params, sweeps, OUT)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_as_the_limit_are_merged() -> None:
    assert len(grid(LORE, [f"merge.lam={','.join(map(str, range(LIMIT)))}"], OUT)) == LIMIT


def test_a_merge_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    """Its manifest would no longer say what it holds."""
    (tmp_path / "merge.json").touch()
    with pytest.raises(BadInput, match="is a merge itself; name another directory with --out"):
        grid(LORE, ["merge.lam=1,2"], tmp_path)
    assert grid(LORE, [], tmp_path) == {tmp_path: LORE}


@pytest.mark.parametrize("value", ["2000-13-45", "!!int ''", "0x" + "f" * 5000, "[" * 3000])
def test_odd_values_are_one_sentence(value: str) -> None:
    for sweep in (f"merge.lam={value}", "merge.lam" + ".a" * 5000 + "=1"):
        with pytest.raises(BadInput, match="--sweep"):
            grid(MergeParams(method="lore"), [sweep], Path("out"))
