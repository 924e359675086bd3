"""The README.md of a merged model directory."""

import json

import yaml

from tasks.base.markdown import in_markdown, markdown_table
from tasks.base.records.merge import MergeReport
from tasks.reporting.lore_summary import summarise
from tasks.reporting.lore_table import LORE_HEADER, LORE_LEGEND, lore_rows

LOAD_MODEL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
```
"""
LOAD_ADAPTER = """```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("path/to/this/directory")
```
"""
NOT_SHOWN = """
## What this card does not show

Whether the merge is better than the checkpoints it was made from. That is measured afterwards: the verdict is
with the version in the registry, and in the card of what is published.
"""


def model_card(report: MergeReport) -> str:
    """Say what the model is made of and how, for whoever finds the directory alone."""
    sources = "\n".join(
        f"- {in_markdown(source.label)}: {in_markdown(source.path)}" for source in report.inputs
    )
    notes = "\n".join(f"- {in_markdown(note)}" for note in report.notes)
    parameters = json.dumps(report.parameters, indent=2, sort_keys=True)
    return (
        f"{_front_matter(report)}\n"
        f"# A merge of {len(report.inputs)} checkpoints by {report.method}\n\n"
        f"{_base(report)}"
        "Made by Loreline; `merge.json` holds what was measured, tensor by tensor, and every digest.\n\n"
        f"## Checkpoints\n\n{sources}\n\n## Load it\n\n{LOAD_ADAPTER if report.base else LOAD_MODEL}\n"
        f"## Parameters\n\n```json\n{parameters}\n```\n"
        + (f"\n## Notes\n\n{notes}\n" if notes else "")
        + _lore(report)
        + NOT_SHOWN
    )


def _front_matter(report: MergeReport) -> str:
    """Return what the Hub reads: library, tags, and the base models that it knows."""
    data: dict[str, object] = {
        "library_name": "peft" if report.base else "transformers",
        "tags": ["merge", "loreline"],
    }
    if report.hub_models:
        data |= {
            "base_model": report.hub_models,
            "base_model_relation": "adapter" if report.base else "merge",
        }
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n"


def _base(report: MergeReport) -> str:
    """Say which model an adapter needs; nothing for a whole model."""
    base = report.base
    return f"An adapter of {in_markdown(base.address)} (digest {base.digest[:12]}).\n\n" if base else ""


def _lore(report: MergeReport) -> str:
    """Say what LoRE found; nothing for other methods."""
    summary = summarise(report)
    if summary is None:
        return ""
    sentences = "\n".join(f"- {in_markdown(sentence)}" for sentence in summary.sentences)
    rows = [[in_markdown(kind), *cells] for kind, *cells in lore_rows(report.tensors)]
    table = f"\n{markdown_table(LORE_HEADER, rows)}\n\n{LORE_LEGEND}\n" if rows else ""
    return f"\n## What LoRE found\n\n{sentences}\n{table}"
