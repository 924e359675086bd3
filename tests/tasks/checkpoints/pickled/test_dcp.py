"""FSDP's shards, as torch.distributed.checkpoint writes them, read without its own unpickling."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.dcp import read_dcp
from tasks.checkpoints.pickled.kinds import find_pickled
from tasks.checkpoints.pickled.stored import StoredTensor
from tests.support.imports import ROOT
from tests.support.pickled_states import Canary, write_fsdp
from tests.support.tiny import random_tensors

TENSORS = random_tensors(2) | {"brain": torch.ones(2, 2).bfloat16(), "scalar": torch.tensor(3)}
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def read(directory: Path) -> dict[str, StoredTensor]:
    state = find_pickled(directory)
    assert state is not None
    assert state.kind == "dcp"
    return read_dcp(state.files)


def test_tensors_are_as_stored_without_the_key_that_accelerate_adds(tmp_path: Path) -> None:
    write_fsdp(tmp_path, TENSORS)
    found = read(tmp_path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor.read(), TENSORS[name])
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, tuple(TENSORS[name].shape))


def test_a_canary_in_the_metadata_does_not_run(tmp_path: Path) -> None:
    place = write_fsdp(tmp_path, TENSORS) / ".metadata"
    record = pickle.loads(place.read_bytes())
    record.planner_data = Canary(tmp_path / "sang")
    place.write_bytes(pickle.dumps(record))
    with pytest.raises(BadInput, match=r"\.metadata: names posix\.mkdir"):
        read(tmp_path)
    assert not (tmp_path / "sang").exists()


def test_a_canary_among_the_chunks_does_not_run(tmp_path: Path) -> None:
    place = write_fsdp(tmp_path, {"w": torch.ones(4)})
    shard = next(place.glob("*.distcp"))
    torch.save(Canary(tmp_path / "sang"), shard)
    record = pickle.loads((place / ".metadata").read_bytes())
    for info in record.storage_data.values():
        info.offset, info.length = 0, shard.stat().st_size
    (place / ".metadata").write_bytes(pickle.dumps(record))
    with pytest.raises(BadInput, match=r"\.distcp: names posix\.mkdir"):
        read(tmp_path)["w"].read()
    assert not (tmp_path / "sang").exists()


def test_objects_that_are_no_tensors_are_refused_unread(tmp_path: Path) -> None:
    write_fsdp(tmp_path, {"w": torch.ones(4), "extra": Canary(tmp_path / "sang")})
    with pytest.raises(BadInput, match="extra is no tensor"):
        read(tmp_path)
    assert not (tmp_path / "sang").exists()


def change(record: Any, **fields: Any) -> None:
    for info in record.storage_data.values():
        for name, value in fields.items():
            setattr(info, name, value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"relative_path": "../../secret.distcp"}, "names '../../secret.distcp', which is not a file beside it"),
        ({"relative_path": "/etc/passwd"}, "names '/etc/passwd'"),
        ({"relative_path": "__9_9.distcp"}, "__9_9.distcp: is missing, but the metadata names it"),
        ({"length": 10**9}, "truncated: .* bytes, but .* are named"),
        ({"offset": -1}, "is not DCP's record"),
        ({"transform_descriptors": ["zstd"]}, "compressed or encoded"),
    ],
)  # fmt: skip
def test_places_that_no_chunk_is_at_are_refused(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    place = write_fsdp(tmp_path, TENSORS) / ".metadata"
    record = pickle.loads(place.read_bytes())
    change(record, **fields)
    place.write_bytes(pickle.dumps(record))
    with pytest.raises(BadInput, match=problem):
        read(tmp_path)


def test_tensors_that_are_not_covered_or_overlap_are_refused(tmp_path: Path) -> None:
    place = write_fsdp(tmp_path, {"w": torch.ones(4, 2)}) / ".metadata"
    record = pickle.loads(place.read_bytes())
    record.state_dict_metadata["model.w"].size = torch.Size([8, 2])
    place.write_bytes(pickle.dumps(record))
    with pytest.raises(BadInput, match="w is not covered by its chunks"):
        read(tmp_path)


@pytest.mark.parametrize("content", [None, [], {"state_dict_metadata": 3}])
def test_another_pickle_in_its_place_is_refused(tmp_path: Path, content: Any) -> None:
    place = write_fsdp(tmp_path, TENSORS) / ".metadata"
    place.write_bytes(pickle.dumps(content))
    with pytest.raises(BadInput, match="is not DCP's record of where tensors are"):
        read(tmp_path)


SAVE = """
import os, sys
from types import SimpleNamespace
import torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType
from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.utils.fsdp_utils import save_fsdp_model
from tests.tasks.checkpoints.pickled.test_dcp import a_model

dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[3]), world_size=2)
PartialState(cpu=True)
model = a_model()
mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
accelerator = SimpleNamespace(num_processes=2, process_index=int(sys.argv[3]))
save_fsdp_model(plugin, accelerator, model, sys.argv[1])
dist.destroy_process_group()
"""


def a_model() -> Any:
    """Return a model whose sizes do not divide evenly between two processes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31, hidden_size=10, intermediate_size=15, num_hidden_layers=2, num_attention_heads=1
        )
    )


@pytest.mark.slow
def test_a_model_that_fsdp_sharded_over_two_processes_is_put_together(tmp_path: Path) -> None:
    """By torch's fully_shard and accelerate's save_fsdp_model themselves."""
    common = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, str(tmp_path), str(tmp_path / "meeting"), str(rank)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    found, expected = read(tmp_path), a_model().state_dict()
    assert found.keys() == expected.keys()
    assert len(list((tmp_path / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2
    for name, tensor in expected.items():
        assert torch.equal(found[name].read(), tensor)
