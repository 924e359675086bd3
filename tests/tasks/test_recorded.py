"""What earlier releases wrote and named stays the same: bytes of merges, identities of merged runs."""

import contextlib
import hashlib
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.base.records.record import FileDigest
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.checkpoints.layout import SINGLE
from tasks.jobs.identity import identity_of, key_of
from tasks.jobs.ledger import Ledger, LedgerEntry
from tasks.merge_checkpoints import merge_directories
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tasks.parameters.params import Params
from tasks.versioning.commit import IDENTITY, MODEL, Message, commit_files
from tests.support.engine_runs import ON_WEIGHTS_ALONE
from tests.support.tiny import write_checkpoint

SHAPES = {
    "model.embed_tokens.weight": (48, 24),
    "model.layers.0.mlp.up_proj.weight": (40, 24),
    "model.layers.0.mlp.down_proj.weight": (24, 40),
    "model.layers.1.experts.weight": (3, 16, 24),
    "model.norm.weight": (24,),
}
FROZEN = "model.layers.0.mlp.down_proj.weight"
RECORDED = {
    "drift and spikes, float32": {
        "lore": "200ff50e670a6084edfdac4899e43027e25b5f25d1650f9b0e2e579b72917754",
        "average": "cad4b3652ae88671927796a36861cd84e3b8578565f780c696875645d65c8417",
        "ema": "f8e49005dcbe1816ecf9294e6c8074f3a2da474f06ef4eba4ef10d3a568bd664",
        "wma": "aabf3fd48b8e348e6741baca54b9f023dbd6011b7e906e97e5181126a06d125c",
        "lawa": "cad4b3652ae88671927796a36861cd84e3b8578565f780c696875645d65c8417",
        "power_ema": "b981b5144b2b7b227cf5409cc6157715d9f8514a059a7542f1c798a1068318ed",
        "wsm": "8f386445fb1562e54d58d8ab581b9ca826af4afa71313a744bce2590ca2fef1f",
        "planned": "528ca2ef0579d6249c5e0b13fc039b5917a5960edf5b1e130d6ec638e4f754e8",  # no rates: trend
        "trend": "528ca2ef0579d6249c5e0b13fc039b5917a5960edf5b1e130d6ec638e4f754e8",
        "drift": "419e9948b7f1aec97c09f3cb66beaf0cf5671a70ef42f9f49f38d80b1e5a743c",
        "median": "632b46ea5372ee348fb15839a9f5c47b27634dc3cb071b86f6dabfc7f7ee9875",
        "trimmed_mean": "cad4b3652ae88671927796a36861cd84e3b8578565f780c696875645d65c8417",
        "geometric_median": "1b62c78d9e2c8794fa02596a204554b9af3e77bc352f405293a22310e574ee8e",
        "task_arithmetic": "f78da916324768072bef1b26a4155ce8317062f512918f45b15494af1444f24c",
        "ties": "914f14bf2e5c952fc860e765b0ed365b072fcd9452783c11f8d0766c064e5ac8",
        "dare": "63f8438edf1a7efece9ef02ab47896c99d41d3291380aa807d29712147a72c95",
        "dare_ties": "223702e233119e17c5b01082273d1b19fb56ea6f7f346133019ce2d3f0936240",
        "breadcrumbs": "e098a8436b5c5f006eea0767b1302b727e5870472b63e61ded99023c9690ae17",
        "metagpt": "1573fe0eccc00e7159d82a7c6e24b8c9ccf0da21b7ed98a27d95acbdd17b3175",
        "slerp": "76dc8023389f2480ad9db9ab917ecd8c3b7fea20bff62b1ba738d2b5fa66849d",
        "model_stock": "983b993ce57915f09ecb0d723f7532421af6b8495695cf238ce3460ff3ec8351",
        "widen": "62b84fc959329da188e0f43a860b393445d6708b29b19bac028b9ead76b6f42c",
        "tsv_m": "c5bbd358734bac273c4714641b6419bacd45a303cb80b882600ce079ef30e62c",
        "iso_c": "340f465346a2658a8356ca61a3746cf4126a8e9e274e766bb33c2f82d976d206",
    },
    "falling spectra, float16": {
        "lore": "3b5ae2b82c12f4fc24d32c96ca76a17aa5c66a6715b7878071bfc345a09c4245",
        "average": "024b846e944140640c03e6cd942818d361cbc28aef03ac48c335c726c69a8389",
        "ema": "57cd200228eb0e20c61909c4296192be24b01f4952f88076d20fc6d5f2ab7310",
        "wma": "3a46c8861fe0e869285a9cb03281b97cd7ee290a62fe9840251d349958755688",
        "lawa": "024b846e944140640c03e6cd942818d361cbc28aef03ac48c335c726c69a8389",
        "power_ema": "4a56f04b6670b0a7d50f5927deacb217d830f0dc898637575310f3a197f4bba9",
        "wsm": "116af785a0f61d90587406b9fd8eeefa06c5b63b274c030352a937beca853032",
        "planned": "30f12179dc76719ab22acd61ad118024745e9a0fcb3d8c698169b6d50efdf510",  # no rates: trend
        "trend": "30f12179dc76719ab22acd61ad118024745e9a0fcb3d8c698169b6d50efdf510",
        "drift": "a2d5f1662f1499adbe4d567e2cec67623f3114bdc846febf4172cab049f92293",
        "median": "6af29ba25c60521598009eab7f3ed7d661b899751cc5de4d727b4e4ed9d159bb",
        "trimmed_mean": "024b846e944140640c03e6cd942818d361cbc28aef03ac48c335c726c69a8389",
        "geometric_median": "df055dafec404300107052ea15e24fd060c8a75c9475c5113732dc4d1155ee1b",
        "task_arithmetic": "94cf637fe2c7e1cc34f5245205b5f7f0416567fa1515e75a7b1802a20b40fc47",
        "ties": "7e9f134320b599bc440f5b4852fcdedaea5b01fb624ec3c4a29f36df5e3ad89d",
        "dare": "dcf64d521a72045c98ae6b4fe2ca555e6a354c4adf13fff0f0ecfe39b57f25c5",
        "dare_ties": "629bb8d21dba995e10e6b0dfd628b2685f1ae980638b15cb48cdc6d9596c08ee",
        "breadcrumbs": "f8e5b956947a4023574528ece11dd86b19b03fb3ee942f9d8012a620dcd03ae1",
        "metagpt": "94da3a3b71d22aed39c1af5efa0ee2aa844aca5646dfcb381f2bf43aa0d67bee",
        "slerp": "a28e808e43bf95e2e0bef7fdad8bab8d5885e58e2aaced25ac6171c77cd2ab24",
        "model_stock": "3ecadb715da23a7cd0bfd58bb123f1ccf72154b9e54d911c352c1c13022580d2",
        "widen": "c80579aa072784d1a35765e3705d37860f83d1b9edbc9fc93cbc06c38ab5aa19",
        "tsv_m": "d38dd0c2ba4183105852563619755990fde932e21445549093b4378db57d9194",
        "iso_c": "fd01226622cdf28bfb12b6f4f7504e26595b36b802282004c24eda3c2c36faa0",
    },
    "heavy tails, bfloat16": {
        "lore": "1dd7b2f6ba5dcde50ed56fab291345c31962fb5350947c0eb6a7f7e605b2a395",
        "average": "615404015bd29e8bb12717e7070f31901c1e2a8b9584a7c64b32715825a077ee",
        "ema": "93babe9f7b897a7493e804fa238fb0c11619e1981c7e2136f479ee69f7bdb43d",
        "wma": "b4150742008c1aa0a8de109f19d7466bb6d12dec83106ec971e65e843cad30c1",
        "lawa": "615404015bd29e8bb12717e7070f31901c1e2a8b9584a7c64b32715825a077ee",
        "power_ema": "c1323fc471760a22e8472330e6a074a37b8244bc8fe1b92df27ec4866726748d",
        "wsm": "f44a98687ba9fa87e2c5cfd21a057f06500790dea48977fe32106a231bd9e06c",
        "planned": "0a83d7be4482d6c9d771e9d45c3c4e1e1ca0d218959b89fed5bf132279f65331",  # no rates: trend
        "trend": "0a83d7be4482d6c9d771e9d45c3c4e1e1ca0d218959b89fed5bf132279f65331",
        "drift": "c278445e32eb84af844ac55d4fbc11630cc4a3cc6d0fc66c3467991e934343bf",
        "median": "4212e3163a3686cf2f8333e577ac955611a83c48fbc72193955f00033a9ee3ed",
        "trimmed_mean": "615404015bd29e8bb12717e7070f31901c1e2a8b9584a7c64b32715825a077ee",
        "geometric_median": "51fad8ec0bcc4499e5242f68a052eaac5f37feb5eb654de86ab20496b478fae5",
        "task_arithmetic": "0b6670791f08245b2a906fc93508c4bae526df5aa1dd6458577fabae99c6f12c",
        "ties": "5f795410c2a2eb037e1c1d5265c79991d9a18158c65d739737f1036304c6865e",
        "dare": "550abd4e1c4756e6c75a5b744030ca8951551d993bd63e19d113b663dbc5cdc2",
        "dare_ties": "add2d3e90e616430c1f9433662448f626508e390cc28879ec9631a010cbbc13a",
        "breadcrumbs": "ad414b0db742a772c37bc535ce715f74baa6b65eb42a5ea6cea54f0dcf16a6a6",
        "metagpt": "738ed9b50f632f9b7748284b0b7f861052eb57ed8f5f43e61c573d036ab0aa0b",
        "slerp": "b6eaf8a76df9f7ad31aa15b890a68116d7faf14985aac84c44f3ba84d301d786",
        "model_stock": "fd75b8488f35545cd1924ad7ab3b5ff1096466afaee9af9f76b196859a2354e6",
        "widen": "0c9c2a887de6b77c0a8062c334f93438eccce67a413d8e6b5330325d978e39a9",
        "tsv_m": "a321d65ff8f429eb585e4d411977d2cb1a49274392b61d57d2abc6d8ba8b0ac9",
        "iso_c": "5ee79e4d48b6ab555ab9bd0366b42acccc0ac08b7981f1f7de22ecefcb394a58",
    },
}
"""Kind of run -> method -> SHA-256 of the weight file that e6acb12 wrote, in bfloat16: no CPU's last float32 place shows."""


Model = dict[str, np.ndarray]


def drift_and_spikes(rng: np.random.Generator) -> list[Model]:
    """Return a base and three checkpoints that drift from it, each with a spike and noise."""

    def draw(scale: float) -> Model:
        return {name: scale * rng.standard_normal(shape) for name, shape in SHAPES.items()}

    base, drift = draw(1.0), draw(0.1)
    models = [base]
    for step in (1, 2, 3):
        noise = draw(0.05)
        spike = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        for name, shape in SHAPES.items():
            if len(shape) == 2:
                spike[name] = 0.5 * np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
        models.append({name: base[name] + step * drift[name] + noise[name] + spike[name] for name in SHAPES})
    return models


def falling_spectra(rng: np.random.Generator) -> list[Model]:
    """Return a base and three checkpoints whose task vectors have no noise floor, as full fine-tuning has."""
    base = {name: 0.05 * rng.standard_normal(shape) for name, shape in SHAPES.items()}
    models = [base]
    for _ in range(3):
        scales = {name: 0.02 * 0.8 ** np.arange(shape[-1]) for name, shape in SHAPES.items()}
        models.append(
            {name: base[name] + scales[name] * rng.standard_normal(shape) for name, shape in SHAPES.items()}
        )
    return models


def heavy_tails(rng: np.random.Generator) -> list[Model]:
    """Return a base and three checkpoints with outliers, scales from 0.001 to 1000, and a frozen tensor."""
    scales = dict(zip(SHAPES, 10.0 ** np.linspace(-3, 3, len(SHAPES)), strict=True))
    base = {name: scales[name] * rng.standard_t(3, shape) for name, shape in SHAPES.items()}
    models = [base]
    for _ in range(3):
        moved = {name: 0.1 * scales[name] * rng.standard_t(2, shape) for name, shape in SHAPES.items()}
        models.append({name: base[name] + moved[name] for name in SHAPES} | {FROZEN: base[FROZEN]})
    return models


RUNS = {
    "drift and spikes, float32": (drift_and_spikes, torch.float32),
    "falling spectra, float16": (falling_spectra, torch.float16),
    "heavy tails, bfloat16": (heavy_tails, torch.bfloat16),
}


def write_run(root: Path, kind: str) -> list[Path]:
    """Write a base, which has step 1, and three checkpoints."""
    make, dtype = RUNS[kind]
    return [
        write_checkpoint(
            root,
            step,
            {name: torch.from_numpy(t.astype(np.float32)).to(dtype) for name, t in own.items()},
            metrics={},
        )
        for step, own in enumerate(make(np.random.default_rng(7)), 1)
    ]


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("method", ON_WEIGHTS_ALONE)
def test_a_merge_has_the_bytes_that_it_always_had(method: str, kind: str, tmp_path: Path) -> None:
    base, *checkpoints = write_run(tmp_path, kind)
    params = {"method": method, "dtype": "bfloat16"}
    if METHODS[method].base == "required":
        params["base"] = str(base)
    merge_directories(
        MergeParams.model_validate(params), checkpoints[: METHODS[method].at_most], tmp_path / "out"
    )
    assert hashlib.sha256((tmp_path / "out" / SINGLE).read_bytes()).hexdigest() == RECORDED[kind][method]


def test_a_merged_run_has_the_identity_that_it_always_had() -> None:
    """Or every run that was merged before would be merged again."""
    file = FileDigest(name="model.safetensors", size=1, sha256="a" * 64)
    checkpoint = Checkpoint(
        name="checkpoint-1", step=1, source="runs/x/checkpoint-1", metrics={}, files=(file,)
    )
    run = TrainingRun(name="x", source="runs/x", checkpoints=(checkpoint,), left_out=())
    params = Params.model_validate(
        {
            "fetch": {"source": "runs/x"},
            "select": {"k": 3},
            "merge": {
                "method": "lore",
                "lam": 0.5,
                "lore": {"mu": {"gradient": [1.0, 2.0]}},
                "device": "cpu",
            },
            "evaluate": {"tasks": ["t"], "primary": "t/acc", "margins": {"t/nll": 0.1}, "batch_size": 8},
            "register": {"name": "m"},
        }
    )
    assert checkpoint.digest == "6932cf52351be39d6506cb3c84aba8c1ef4ca7e6a285b10bfe4add27b00e4876"
    assert run.digest == "1cf8faf161b205fc5bcbe27b90adc99ca6bf0c7681f4b628d9e4ab7a0816a5b1"
    assert key_of("seen", params) == "785edcc0d0575fe7c7f3e1a70926edbec9be359c5e20dd09574f0bfc33ff1ecf"
    assert identity_of(run, params) == "6955402eb319d80eb4a8ab6b0b327cf7c2b3dfd97cf7ebf532dc2e6a73075184"


LEDGER = """
CREATE TABLE jobs (
        key TEXT PRIMARY KEY, source TEXT NOT NULL, state TEXT NOT NULL, token INTEGER NOT NULL,
        workspace TEXT NOT NULL, owner TEXT NOT NULL, flow_run TEXT, since REAL NOT NULL, beat REAL NOT NULL,
        sentence TEXT NOT NULL, identity TEXT, version TEXT, tag TEXT
    );
INSERT INTO jobs VALUES('025ce68e','runs/demo','merged',1,'025ce68e80bc5a04','{"host":"vm",
    "boot":"03d63a2f-39fd-4b45-b777-c3be11eb962d","namespace":"pid:[4026531836]","pid":20424,"start":"122973"}',
    'b75568fe-5867-4d64-8818-afaf51b5cbce',1795864179.14,1795864179.14,'models:/loreline-demo/1: PROMOTE.',
    '71c0364589fe','models:/loreline-demo/1','merge/demo');
PRAGMA application_id = 1282363973;
PRAGMA user_version = 1;
"""
"""As e6acb12 wrote it."""


def test_a_ledger_of_an_earlier_release_still_knows_what_is_merged(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(LEDGER)
    ledger = Ledger(tmp_path / "ledger.db")
    known = ledger.claim("025ce68e", "runs/demo")
    assert isinstance(known, LedgerEntry)
    assert (known.state, known.version, known.tag) == ("merged", "models:/loreline-demo/1", "merge/demo")
    assert ledger.merged_as("71c0364589fe") == known


def test_a_commit_of_an_earlier_release_stands_for_its_merge(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch", "main"], check=True)
    (tmp_path / "dvc.lock").write_text("{}\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "Start"], check=True)
    said = "Merge demo by lore: PROMOTE\n\nPROMOTE: it gains.\n\nLoreline-Run: demo\n"
    said += "Loreline-Identity: 71c0364589fe\nLoreline-Model: models:/loreline-demo/1\n"
    subprocess.run([*git, "branch", "merges"], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    made = [*git, "commit-tree", tree, "-p", "main", "-m", said]
    revision = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*git, "update-ref", "refs/heads/merges", revision], check=True)
    trailers = {IDENTITY: "71c0364589fe", MODEL: "models:/loreline-demo/1"}
    message = Message("Merge demo by lore: KEEP", "in other words", trailers)
    assert commit_files(tmp_path, "merges", {"dvc.lock": tmp_path / "dvc.lock"}, message) == revision
