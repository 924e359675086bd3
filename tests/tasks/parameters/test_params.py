"""Parameters: every mistake is one sentence that names the key; nothing is guessed."""

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.parameters.params import Params, read_params
from tasks.recipes.recipe import read_merge_params, read_recipe

GOOD = """
fetch: {source: runs/x}
merge: {method: lore, lore: {mu: 0.5}}
evaluate: {tasks: [t], primary: t/nll}
"""


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    return path


def test_the_repository_s_own_params_are_valid() -> None:
    params = read_params(Path(__file__).parents[3] / "params.yaml")
    assert params.fetch.source == "runs/demo"


def test_overrides_reach_nested_keys_and_are_parsed_as_yaml(params_file: Path) -> None:
    params = read_params(
        params_file, ["merge.lore.mu=2", "select.steps=[1, 2]", "register.promote=auto", "merge.lam=1e-1"]
    )
    assert params.merge.lore.mu == 2
    assert params.select.steps == (1, 2)
    assert params.register_.promote == "auto"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("merge.lore.mu_=1", "unknown key merge.lore.mu_; did you mean mu?"),
        ("regster.name=x", "unknown key regster; did you mean register?"),
        ("merge.lore.strength=1", "unknown key merge.lore.strength; see loreline params merge.lore"),
        (
            "zzz=1",
            "unknown key zzz; the keys are fetch, select, search, merge, evaluate, register, version, watch",
        ),
        ("merge.lore.mu=0", "merge.lore.mu: input should be greater than 0, but it is 0"),
        ("merge.lore.mu=.nan", "merge.lore.mu: "),
        ("merge.method=lor", "but it is 'lor'"),
        ("select.k=many", "select.k: "),
        ("select.k", "write it as section.key=value"),
        ("merge.method.x=1", "--set merge.method.x: method is not a section"),
        ("evaluate.primary=nll", "evaluate.primary: "),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(
    params_file: Path, override: str, sentence: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_params(params_file, [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_address_is_refused_and_not_repeated(params_file: Path) -> None:
    with pytest.raises(BadInput, match="register.tracking_uri: is not a usable address") as caught:
        read_params(params_file, ["register.tracking_uri=http://me:secret[@host"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "password", ["secret", "sec/secret", "sec?secret", "sec#secret", "x@host/db?sslpassword=secret"]
)
def test_a_password_is_refused_and_not_repeated(params_file: Path, password: str) -> None:
    with pytest.raises(
        BadInput, match="register.tracking_uri: holds a user, a password or a query"
    ) as caught:
        read_params(params_file, [f"register.tracking_uri='postgresql://me:{password}@host/db'"])
    assert "secret" not in str(caught.value)
    read_params(params_file, ["register.tracking_uri=sqlite:////home/me@work/mlflow.db"])


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a",  # what a YAML bomb is made of
        "fetch: !!python/object/apply:os.system [touch /tmp/loreline-was-here]",
        "just text",
        "fetch: [",
        "- 1",
    ],
)
def test_anything_but_plain_sections_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match="params.yaml"):
        read_params(tmp_path / "params.yaml")
    assert not Path("/tmp/loreline-was-here").exists()


def test_a_missing_file_or_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("evaluate: {tasks: [t], primary: t/nll}")
    with pytest.raises(BadInput, match="fetch is missing"):
        read_params(tmp_path / "params.yaml")


def test_a_merge_outside_a_pipeline_takes_merge_keys_only() -> None:
    assert read_merge_params(["merge.method=average"]).method == "average"
    with pytest.raises(BadInput, match="only merge"):
        read_merge_params(["select.k=3"])
    with pytest.raises(BadInput, match="unknown key merge.potency; see loreline params merge$"):
        read_merge_params(["merge.potency=3"])


@given(st.text(max_size=80))
def test_no_override_escapes_as_another_exception(text: str) -> None:
    with contextlib.suppress(BadInput):
        read_merge_params([text])


def test_params_survive_the_json_of_a_deployment(params_file: Path) -> None:
    params = read_params(params_file)
    assert Params.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(
    "setting",
    [
        "merge.lam=2000-13-45",
        "merge.lam=" + "[" * 5000,
        "merge.lam=9e999999",
        "merge.lam=1_0:99:99",
        "merge.lam=\x00",
        "merge.lam=0x" + "f" * 5000,
        "merge.lam=1" + ":1" * 300 + ".5",
        "merge.lam=!!timestamp x",
        "merge.lam=!!int ''",
        "merge.lam" + ".a" * 20_000 + "=1",
        "merge.lam=[{match: '" + "(" * 5000 + "', value: 1}]",
        "merge.lam=[{match: 'a{99999999999}', value: 1}]",
    ],
)
def test_odd_values_are_one_sentence(tmp_path: Path, setting: str) -> None:
    (tmp_path / "params.yaml").write_text("evaluate: {tasks: [t], primary: t/nll}\n")
    with pytest.raises(BadInput) as caught:
        read_params(tmp_path / "params.yaml", [setting])
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    "text", ["merge: {lam: 2000-13-45}", "a: " + "[" * 5000, "a: 1\n" * 10**6, "a: " + "9" * 5000]
)
def test_odd_files_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"params.yaml"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "setting",
    [
        "register.tracking_uri={password: hunter2}",
        "register.tracking_uri={password: hunter2",
        "register.tracking_uri=[hunter2]",
        "register.tracking_uri=http://me:hunter2@host",
        "register.tracking_uri: hunter2",
        "fetch.source=s3://me:hunter2@bucket/run",
        "fetch.source=https://host/run?X-Amz-Signature=hunter2",
        "fetch.source={key: hunter2}",
        "fetch.source=mlflow:/runs/me:hunter2@x/checkpoints",
        "watch.roots=[s3://me:hunter2@bucket/runs]",
    ],
)
def test_no_value_that_may_be_a_secret_is_taken_or_shown(params_file: Path, setting: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_params(params_file, [setting])
    assert "hunter2" not in str(caught.value)
    assert setting.partition(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "source", ["hf://org/name@step*", "s3://bucket/a run", "runs/my@run", "mlflow:/runs/1/a@b"]
)
def test_addresses_without_secrets_are_taken(params_file: Path, source: str) -> None:
    assert read_params(params_file, [f"fetch.source={source}"]).fetch.source == source


def test_deep_brackets_are_refused_before_they_are_scanned(params_file: Path) -> None:
    params_file.write_text("a: " + "[" * 60_000)
    begun = time.process_time()
    with pytest.raises(BadInput, match="deeper than 50"):
        read_params(params_file)
    assert time.process_time() - begun < 0.5


def test_what_is_not_yaml_is_named_by_its_place_and_not_quoted(params_file: Path) -> None:
    params_file.write_text("fetch: {source: runs/x}\nregister: {password: hunter2, [}\n")
    with pytest.raises(BadInput, match=r"in line 2, column 32") as caught:
        read_params(params_file)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["fetch.source", "merge.base", "watch.roots", "register.name", "evaluate.include_path"]
)
@pytest.mark.parametrize("text", ["a\\0b", "a\\uD800b"])
def test_no_text_holds_what_no_path_takes(tmp_path: Path, key: str, text: str) -> None:
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[3] / "params.yaml").read_text())
    value = f'["{text}"]' if key == "watch.roots" else f'"{text}"'
    with pytest.raises(BadInput, match="holds a NUL or what is not UTF-8"):
        read_params(tmp_path / "params.yaml", [f"{key}={value}"])


def test_a_mistake_without_a_section_has_no_empty_key(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text('checkpoints: ["a\\0b"]\nmethod: average\n')
    with pytest.raises(BadInput, match=r"recipe\.yaml: checkpoints holds a NUL"):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        ("runs/a", ("runs/a",)),
        ("[runs/a]", ("runs/a",)),
        ("[runs/a, 'hf://org/b@c*']", ("runs/a", "hf://org/b@c*")),
    ],
)
def test_fetch_source_is_a_run_or_a_list_of_runs(
    given: str, runs: tuple[str, ...], params_file: Path
) -> None:
    fetch = read_params(params_file, [f"fetch.source={given}"]).fetch
    assert fetch.runs == runs
    assert fetch.address == " + ".join(runs)
    assert fetch.of("other") == fetch.model_copy(update={"source": "other"})
    if len(runs) == 1:
        assert fetch.source == runs[0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("[]", "fetch.source: names no run; name one"),
        ("[a, b, a]", "fetch.source: names a twice; name every run once"),
        ("[a, [b]]", "fetch.source.1: input should be a valid string, but it is a list"),
        ("[[a]]", "fetch.source.0: input should be a valid string, but it is a list"),
        ("[a, 's3://me:hunter2@bucket/run']", "fetch.source.1: holds a user, a password or a query"),
    ],
)
def test_a_list_of_runs_that_is_none_is_refused(given: str, sentence: str, params_file: Path) -> None:
    with pytest.raises(BadInput, match=sentence) as refused:
        read_params(params_file, [f"fetch.source={given}"])
    assert "hunter2" not in str(refused.value)


def test_settings_of_lore_without_the_method_are_refused() -> None:
    """It was the default in 0.1.0: they would be passed over now."""
    with pytest.raises(
        BadInput, match="lore is set and method is not, whose default is planned; set method: lore"
    ):
        read_merge_params(["merge.lore.mu=2"])
    assert read_merge_params(["merge.method=lore", "merge.lore.mu=2"]).lore.mu == 2
