"""A merge is a complete model that transformers loads without a word, or nothing at all."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.measures import Averaged, LoreMeasures
from tasks.base.publish import MANIFEST
from tasks.base.records.merge import MergeReport
from tasks.engine.progress import Headway
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints, merge_directories
from tasks.merging.lore import beginning, dense
from tasks.merging.lore.problem import NotConverged
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import LoreParams, MergeParams
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tests.support.tiny import CONFIG, random_tensors, write_checkpoint

AVERAGE = MergeParams(method="average")


@pytest.fixture
def artifacts(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """Fetch and select three checkpoints."""
    checkpoints = [make_checkpoint(step) for step in (100, 200, 300)]
    fetch_run(FetchParams(source=str(checkpoints[0].parent), settle=0), tmp_path / "artifacts")
    select_checkpoints(SelectParams(), tmp_path / "artifacts")
    return tmp_path / "artifacts"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_average_is_the_float64_mean_rounded_once(artifacts: Path) -> None:
    report = merge_checkpoints(AVERAGE, artifacts)
    merged = load_file(artifacts / "merged" / "model.safetensors")
    for name, tensor in merged.items():
        exact = torch.stack([random_tensors(step)[name].double() for step in (100, 200, 300)]).mean(0)
        assert torch.equal(tensor, exact.float())
    assert [source.step for source in report.inputs] == [100, 200, 300]


def test_merge_json_says_what_was_done(artifacts: Path) -> None:
    report = merge_checkpoints(MergeParams(method="lore", lam=0.5), artifacts)
    assert MergeReport.read(artifacts / "merged" / "merge.json") == report
    assert report.method == "lore"
    assert report.parameters["lam"] == 0.5
    assert report.parameters["lore"]["mu_scale"] == "auto"
    assert "ema" not in report.parameters
    assert report.tensors["norm"].method == Averaged(identical=False)
    deviation, found = report.tensors["tall"].deviation, report.tensors["tall"].method
    assert deviation is not None
    assert len(deviation.norms) == len(deviation.cosines) == 3
    assert 0 < deviation.conflict <= 1
    assert isinstance(found, LoreMeasures)
    assert found.gap <= 1e-4
    assert len(found.ranks) == 3
    assert "λ = 0.5" in report.notes[0]
    assert "checkpoint-300" in (artifacts / "merged" / "README.md").read_text()


def test_the_same_inputs_give_the_same_bytes(artifacts: Path) -> None:
    merge_checkpoints(MergeParams(method="lore"), artifacts)
    first = contents(artifacts / "merged")
    shutil.rmtree(artifacts / "merged")
    merge_checkpoints(MergeParams(method="lore"), artifacts)
    assert contents(artifacts / "merged") == first


def test_a_finished_merge_is_not_done_again_and_a_damaged_one_is(artifacts: Path) -> None:
    def merged_tensors() -> int:
        heard: list[Headway] = []
        merge_checkpoints(AVERAGE, artifacts, heard.append)
        return len({headway.last for headway in heard if headway.last})

    assert merged_tensors() == 5
    assert merged_tensors() == 0
    path = artifacts / "merged" / "model.safetensors"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    assert merged_tensors() == 5
    assert path.read_bytes() == intact


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_merge_is_made_again_when_a_side_file_was_mended(
    make_checkpoint: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    places, out = [make_checkpoint(step) for step in (1, 2)], tmp_path / "out"
    params = MergeParams(method="average")
    merge_directories(params, places, out)
    for text in ('{"mended": 1}', '{"mended": 2}'):
        (places[1] / name).write_text(text)
        merge_directories(params, places, out)
        assert (out / name).read_text() == text
    made = (out / "merge.json").stat().st_mtime_ns
    merge_directories(params, places, out)
    assert (out / "merge.json").stat().st_mtime_ns == made


def test_progress_ends_at_the_whole(artifacts: Path) -> None:
    heard: list[tuple[int, int]] = []
    merge_checkpoints(AVERAGE, artifacts, lambda headway: heard.append((headway.done, headway.total)))
    size = sum(tensor.numel() * 4 for tensor in random_tensors(100).values())
    assert heard[-1] == (size, size)
    assert heard == sorted(heard)


def test_a_tensor_that_does_not_converge_is_named(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "GRAM_ROUNDING", 0.0)  # Newton's method gives up
    monkeypatch.setattr(dense, "DENSE_PASSES", 1)
    with pytest.raises(NotConverged, match=r"tensor \w+: LoRE: relative duality gap .* after 1 passes"):
        merge_checkpoints(MergeParams(method="lore"), artifacts)
    assert not (artifacts / "merged").exists()


def llama(root: Path, step: int, *, tied: bool, dtype: torch.dtype = torch.float32) -> Path:
    """Write a real tiny Llama as a checkpoint."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(step)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    directory = root / f"checkpoint-{step}"
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["5GB", "8KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_loads_the_merge_without_a_warning(
    tmp_path: Path, tied: bool, max_shard_size: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    inputs = [llama(tmp_path, step, tied=tied, dtype=dtype) for step in (1, 2, 3)]
    out = tmp_path / "merged"
    merge_directories(MergeParams(max_shard_size=max_shard_size), inputs, out)
    logging.get_logger("transformers").propagate = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, dtype="auto")
    assert not any(info.values())
    assert not caplog.records
    assert model.dtype == dtype
    names = {name for path in out.glob("*.safetensors") for name in load_file(path)}
    assert ("lm_head.weight" in names) != tied
    assert (out / "generation_config.json").exists()
    assert len(list(out.glob("*.safetensors"))) == (
        1 if max_shard_size == "5GB" else len(list(out.glob("model-*")))
    )
    assert model.generate(torch.tensor([[1, 5]]), max_new_tokens=3, do_sample=False).shape[0] == 1


@pytest.mark.parametrize(
    ("dtypes", "dtype", "written"),
    [
        ((torch.bfloat16, torch.float32, torch.bfloat16), "auto", torch.float32),
        ((torch.float32, torch.float32, torch.bfloat16), "auto", torch.float32),
        ((torch.bfloat16, torch.float16, torch.float16), "auto", torch.float32),
        ((torch.float32, torch.float32, torch.float32), "bfloat16", torch.bfloat16),
        ((torch.bfloat16, torch.bfloat16, torch.bfloat16), "auto", torch.bfloat16),
    ],
)
def test_the_configuration_names_the_dtype_that_is_written(
    tmp_path: Path, dtypes: tuple[torch.dtype, ...], dtype: str, written: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    inputs = [llama(tmp_path, step, tied=True, dtype=kind) for step, kind in enumerate(dtypes, 1)]
    merge_directories(MergeParams(method="average", dtype=dtype), inputs, tmp_path / "out")  # type: ignore[arg-type]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {written}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(written)[6:]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == written
    for name, tensor in tensors.items():
        exact = torch.stack([load_file(path / "model.safetensors")[name].double() for path in inputs]).mean(0)
        assert torch.equal(tensor, exact.to(written))


def change(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
        save_file(tensors, directory / "model.safetensors")

    return damage


def other_config(directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 17}))


NAN = random_tensors(200)["tall"].index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(float("nan")))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change("tall", NAN), "checkpoint-200: tensor tall holds NaN or Inf"),
        (
            change("tall", torch.ones(12, 6)),
            r"checkpoint-200: tensor tall is \(12, 6\), but \(12, 5\) in checkpoint-100",
        ),
        (
            change("tall", torch.ones(12, 5).int()),
            "checkpoint-200: tensor tall is of dtype I32, but of dtype F32",
        ),
        (change("tall", None), "checkpoint-200: tensor tall is missing, but checkpoint-100 has it"),
        (change("new", torch.ones(1)), "checkpoint-100: tensor new is missing, but checkpoint-200 has it"),
        (other_config, "checkpoint-200: vocab_size in config.json is 17, but 16 in checkpoint-100"),
        (lambda d: os.truncate(d / "model.safetensors", 700), r"checkpoint-200/model.safetensors: truncated"),
        (lambda d: (d / "model.safetensors").unlink(), "checkpoint-200: no model.safetensors"),
        (shutil.rmtree, "checkpoint-200: no such directory"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_is_written(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    inputs = [write_checkpoint(tmp_path / "training", step) for step in (100, 200, 300)]
    damage(inputs[1])
    with pytest.raises(BadInput, match=sentence) as caught:
        merge_directories(AVERAGE, inputs, tmp_path / "out" / "merged")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize(
    ("params", "count", "sentence"),
    [
        (AVERAGE, 1, "nothing to merge: 1 checkpoint"),
        (
            MergeParams(method="lore", lore=LoreParams(anchor=7)),
            2,
            r"merge.lore.anchor: step 7 is not merged; the steps are \[1, 2\]",
        ),
    ],
)
def test_settings_that_fit_no_checkpoint_are_refused(
    tmp_path: Path, params: MergeParams, count: int, sentence: str
) -> None:
    inputs = [write_checkpoint(tmp_path, step) for step in range(1, count + 1)]
    with pytest.raises(BadInput, match=sentence):
        merge_directories(params, inputs, tmp_path / "out")


def test_an_output_directory_that_is_someone_s_is_left_alone(tmp_path: Path) -> None:
    inputs = [write_checkpoint(tmp_path, step) for step in (1, 2)]
    with pytest.raises(BadInput, match="is not apart from the input"):
        merge_directories(AVERAGE, inputs, inputs[0])
    with pytest.raises(BadInput, match="is named twice"):
        merge_directories(AVERAGE, [*inputs, inputs[0]], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        merge_directories(AVERAGE, inputs, tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BadInput, match="is not empty"):
        merge_directories(AVERAGE, inputs, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_killed_in_the_middle_the_next_run_gives_the_same_model(artifacts: Path) -> None:
    """A real process kills itself after its third tensor; then the stage runs again."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tasks.merge_checkpoints import merge_checkpoints; from tasks.parameters.params import MergeParams\n"
        "seen = {''}\n"
        "def stop(headway):\n"
        "    seen.add(headway.last)\n"
        "    if len(seen) > 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "merge_checkpoints(MergeParams(method='lore'), Path(sys.argv[1]), stop)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, str(artifacts)], cwd=root, check=False)
    assert killed.returncode == -9
    assert not (artifacts / "merged").exists()
    report = merge_checkpoints(MergeParams(method="lore"), artifacts)
    assert not list(artifacts.glob(".merged*"))
    shutil.rmtree(artifacts / "merged")
    assert merge_checkpoints(MergeParams(method="lore"), artifacts).outputs == report.outputs
    assert (artifacts / "merged" / MANIFEST).exists()
