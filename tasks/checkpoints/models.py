"""Opening the inputs of a merge: whole models, adapters on a base, or adapters by themselves."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import is_adapter
from tasks.checkpoints.peft.adapted import adapt
from tasks.checkpoints.peft.adapter import Adapter, read_adapter
from tasks.checkpoints.weights import WeightReader, open_weights


def open_models(
    directories: Sequence[Path], labels: Sequence[str], base: WeightReader | None, one_base: bool = False
) -> list[WeightReader]:
    """Open the inputs of one merge.

    Adapters alone, without a base, stay adapters; else each is seen on the base, or on the directory that it
    names itself. Raises BadInput where none is given and adapters name different ones, unless they are known
    to be of `one_base`.
    """
    adapters = {i: read_adapter(place, labels[i]) for i, place in enumerate(directories) if is_adapter(place)}
    if base is None and not one_base:
        _check_one_base(list(adapters.values()))
    if adapters and len(adapters) == len(directories) and base is None:
        return list(adapters.values())
    opened: list[WeightReader] = []
    for i, place in enumerate(directories):
        if i not in adapters:
            opened.append(open_weights(place, labels[i]))
            continue
        base = base or open_weights(own_base(adapters[i]), f"base {adapters[i].config.base}")
        opened.append(adapt(adapters[i], base))
    return opened


def own_base(adapter: Adapter) -> Path:
    """Return the directory that an adapter names as its base; BadInput where it names none here."""
    named = adapter.config.base_model_name_or_path
    if not named or not Path(named).is_dir():
        raise BadInput(
            adapter.label, f"is an adapter of {adapter.config.base}", "set merge.base to its directory"
        )
    return Path(named)


def _check_one_base(adapters: Sequence[Adapter]) -> None:
    for adapter in adapters[1:]:
        if adapter.config.base != adapters[0].config.base:
            raise BadInput(
                adapter.label,
                f"was trained on {adapter.config.base}, but {adapters[0].label} on {adapters[0].config.base}",
                "adapters of one merge must share one base; where these are two spellings of it, name it",
            )
