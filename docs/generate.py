"""The pages of the reference that the code writes: `make docs` brings them up to date."""

from pathlib import Path

from tasks.parameters.explain import explain, explained_markdown
from tasks.parameters.params import Params
from tasks.reporting.methods_table import methods_markdown

REFERENCE = Path(__file__).parent / "reference"
PARAMETERS = """\
<!-- Written by `make docs` from the models in tasks/parameters; edit those. -->

# Parameters

The keys of `params.yaml`. `loreline params [SECTION]` prints the same for a section or a key, and
`--set section.key=value` overrides one for a single command. A key that is not set has its default.

"May vary": instead of one number there may be `{gradient: [first, ..., last]}` over the layers, or rules by
tensor name, `[{match: REGEX, value: x}, ..., {value: y}]`.
[Examples](../how-to/recipes.md#numbers-that-vary).
"""
METHODS = """\
<!-- Written by `make docs` from the table in tasks/merging/methods.py; edit that. -->

# Methods

What `merge.method` can be; `loreline methods` prints the same with the defaults. Beside what is named here,
every method reads `merge.base`, `merge.dtype`, `merge.on_nan`, `merge.device` and `merge.max_shard_size`.
[Mathematics](../mathematics.md#the-other-methods) has the formulas. `fisher` and `regmean` measure the
checkpoints on text, `adamerging` learns on it: [how](../how-to/calibrated-methods.md), and
[what it is worth](../how-to/calibrated-methods.md#what-it-is-worth): there is published evidence for several
runs of one base, and little for one run.
"""


def generated() -> dict[Path, str]:
    """Return every page that is generated, and what it should hold."""
    return {
        REFERENCE / "parameters.md": f"{PARAMETERS}\n{explained_markdown(explain(Params))}\n",
        REFERENCE / "methods.md": f"{METHODS}\n{methods_markdown()}\n",
    }


def main() -> None:
    """Write what is not as it should be."""
    for path, text in generated().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
