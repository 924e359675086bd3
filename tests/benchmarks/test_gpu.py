"""The benchmark for a GPU runs on CPU tensors: all but its clock is tried where there is no GPU."""

from pathlib import Path

import pytest

from tests.benchmarks import gpu


def test_it_prints_a_section_with_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--layers", "1", "--side", "64"])
    printed = capsys.readouterr().out
    assert printed.startswith("## On a GPU")
    assert [line.split(" | ")[0].strip("| ") for line in printed.splitlines()[6:]] == list(gpu.MEASURED)


@pytest.mark.slow
def test_it_merges_from_files_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--layers", "1", "--side", "64", "--files", str(tmp_path)])
    assert "LoRE from files, s" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_its_section_takes_the_place_of_the_last(tmp_path: Path) -> None:
    page = "# Page\n\n## One\n\na\n"
    once = gpu.with_section(page, "## On a GPU\n\nold\n")
    assert once == page + "\n## On a GPU\n\nold\n"
    between = once + "\n## Two\n\nb\n"
    assert gpu.with_section(between, "## On a GPU\n\nnew\n") == between.replace("old", "new")
