"""A recipe as a file: its keys are the merge section's, its paths its own directory's."""

from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.recipes.recipe import read_recipe

RECIPE = """
checkpoints: [one, sub/two]
base: ../models/base
method: ties
ties: {density: [{match: attn, value: 0.1}, {value: 0.3}]}
lam: 1e-1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Write a recipe beside empty model directories."""
    for name in ("recipes/one", "recipes/sub/two", "models/base"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "recipes" / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_paths_are_relative_to_the_file_not_to_the_working_directory(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    read = read_recipe(recipe)
    assert read.checkpoints == [recipe.parent / "one", recipe.parent / "sub/two"]
    assert read.params.base is not None
    assert Path(read.params.base).samefile(recipe.parents[1] / "models" / "base")
    assert (read.params.method, read.params.lam, read.notes) == ("ties", 0.1, [])


def test_a_home_directory_is_expanded(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(recipe.parents[1]))
    recipe.write_text("checkpoints: [~/models/base]")
    assert read_recipe(recipe).checkpoints == [recipe.parents[1] / "models/base"]


def test_overrides_apply_on_top(recipe: Path) -> None:
    params = read_recipe(
        recipe, ["merge.ties.density=0.7", "merge.dare.p=0.1", "merge.base=elsewhere"]
    ).params
    assert (params.ties.density, params.dare.p, params.lam, params.base) == (0.7, 0.1, 0.1, "elsewhere")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method: ties", "checkpoints is missing; set it"),
        ("checkpoints: []", "checkpoints: "),
        ("checkpoints: one", "checkpoints: "),
        ("checkpoints: [1]", "checkpoints.0: "),
        ("checkpoint: [one]", "unknown key checkpoint; did you mean checkpoints?"),
        ("checkpoints: [one]\nmethd: ties", "unknown key methd; did you mean method?"),
        ("checkpoints: [one]\nties: {densty: 1}", "unknown key ties.densty; did you mean density?"),
        ("checkpoints: [one]\nmethod: tie", "method: input should be "),
        ("checkpoints: [nowhere]", "checkpoints.0: there is no directory "),
        ("checkpoints: [recipe.yaml]", "checkpoints.0: there is no directory "),
        ("checkpoints: [one]\nbase: nowhere", "base: there is no directory "),
        ("checkpoints: [org/model]", "hf download org/model --local-dir DIR"),
        ("checkpoints: [org/model@step10]", "hf download org/model --revision step10 --local-dir DIR"),
        ("checkpoints: [~nobody-at-all/x]", "checkpoints.0: "),
        ("checkpoints: [" + "x" * 300 + "]", "checkpoints.0: xxx"),
        ("checkpoints: [\"a\\0b\"]", "checkpoints holds a NUL"),
        ("checkpoints: &a [one]\nweights: *a", "aliases (*name) are not allowed"),
        ("checkpoints: !!python/tuple [one]", "not readable as plain YAML"),
        ("checkpoints: [one", "not readable as plain YAML"),
        ("- one", "must hold checkpoints and method, not list"),
        ("1: 2\ncheckpoints: [one]", "recipe.yaml: "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_file_and_key(recipe: Path, text: str, sentence: str) -> None:
    recipe.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_recipe(recipe)
    assert sentence in str(caught.value)
    assert str(recipe) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_override_is_named_as_such(recipe: Path) -> None:
    with pytest.raises(BadInput, match=r"^--set: merge\.ties\.density: "):
        read_recipe(recipe, ["merge.ties.density=7"])
    with pytest.raises(BadInput, match="only merge"):
        read_recipe(recipe, ["select.k=7"])


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file; name a recipe"):
        read_recipe(tmp_path / "recipe.yaml")
