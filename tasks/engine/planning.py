"""Planning a merge: everything that can be checked before any arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records.training_run import Checkpoint
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.models import open_models
from tasks.checkpoints.names import labels_of, step_of
from tasks.checkpoints.peft.adapted import Adapted
from tasks.checkpoints.peft.adapter import Adapter
from tasks.checkpoints.weights import Changed, SafetensorsModel, WeightReader, open_weights
from tasks.engine.adapters import AdapterPlan, adapter_spec, changed_shapes, check_alike, factor_dtypes
from tasks.engine.inputs import agree
from tasks.engine.plan import Plan, written_dtype
from tasks.engine.shards import Stored
from tasks.merging.layers import Layers
from tasks.merging.method import Method
from tasks.merging.methods import METHODS, method_of
from tasks.merging.program import Rates, Settings
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve


def plan_merges(
    variants: Sequence[MergeParams],
    inputs: Sequence[WeightReader],
    base: WeightReader | None,
    steps: Sequence[int],
    rates: Rates = (),
) -> Plan:
    """Plan a merge into models, or into adapters where only adapters are given.

    `rates`: the run's learning rates, where known. Variants differ only in parameters that the method reads.
    Raises BadInput naming what does not fit.
    """
    adapters = [source for source in inputs if isinstance(source, Adapter)]
    if adapters:
        return plan_adapters(variants, adapters, steps, rates)
    return make_plan(variants, inputs, base, steps, rates)


def narrowed(plan: Plan, kept: Sequence[int]) -> Plan:
    """Plan the merge of some of a plan's checkpoints, by their positions."""
    variants, first = [settings.params for settings in plan.variants], plan.variants[0]
    inputs, steps = [plan.inputs[i] for i in kept], [first.steps[i] for i in kept]
    return replace(plan_merges(variants, inputs, plan.base, steps, first.rates), texts=plan.texts)


def with_variants(plan: Plan, kept: Sequence[int]) -> Plan:
    """Return the plan of some of a plan's variants, by their positions."""
    variants = [plan.variants[i] for i in kept]
    return replace(plan, variants=variants, method=method_of(variants))


def make_plan(
    variants: Sequence[MergeParams],
    inputs: Sequence[WeightReader],
    base: WeightReader | None,
    steps: Sequence[int],
    rates: Rates = (),
) -> Plan:
    """Check that these models can be merged by this method, and plan what will be written.

    Raises BadInput naming what does not fit.
    """
    params, method = variants[0], check_method(variants, len(inputs))
    if params.adapter_rank is not None:
        raise BadInput(
            "merge.adapter_rank",
            "a full model has no rank",
            "leave it out, or merge adapters into an adapter",
        )
    if method.base == "required" and base is None:
        raise BadInput(
            "merge.base", f"{params.method} needs the model the checkpoints started from", "name it"
        )
    of_each = method.measures in ("gradients", "inputs")  # for which each is loaded from its files
    if of_each and not all(isinstance(source, SafetensorsModel) for source in inputs):
        method.check_span(params)
    inputs, base, names, notes = agree(inputs, base)
    spec = {
        name: Stored(
            written_dtype({source.tensors[name].dtype for source in inputs}, params),
            inputs[-1].tensors[name].shape,
        )
        for name in names
    }
    floating = {
        name: stored.shape for name, stored in spec.items() if stored.dtype in FLOATING and stored.size
    }
    dtypes = {name: spec[name].dtype for name in floating}
    settings = make_settings(variants, steps, floating, dtypes, Layers.of(names), rates)
    changes = _changes(inputs, base, floating)
    return Plan(inputs, base, settings, spec, method_of(settings), changes=changes, notes=notes)


def plan_chosen(
    params: MergeParams, chosen: Sequence[Checkpoint], directories: Sequence[Path], rates: Rates
) -> Plan:
    """Plan a merge of selected checkpoints whose files are in these directories, by resolved parameters.

    Raises BadInput naming what does not fit.
    """
    base = open_base(params)
    inputs = open_models(directories, [checkpoint.name for checkpoint in chosen], base, one_base=True)
    return plan_merges([params], inputs, base, [checkpoint.step for checkpoint in chosen], rates)


def open_base(params: MergeParams) -> SafetensorsModel | None:
    """Open the model that merge.base names."""
    return open_weights(Path(params.base), f"base {params.base}") if params.base else None


def plan_average(
    directories: Mapping[str, Path],
    steps: Sequence[int],
    base: Path | None,
    weights: Sequence[float] | None = None,
) -> Plan:
    """Plan the plain average of models, or of adapters of one base, by their labels; `weights` unset: equal.

    It is an adapter of the base, too, but for DoRA: that averages on it.
    """
    places, labels = list(directories.values()), list(directories)
    inputs = open_models(places, labels, None, one_base=True)
    if base and any(isinstance(source, Adapter) and source.is_dora for source in inputs):
        inputs = open_models(places, labels, open_weights(base, f"base {base}"))
    weighed = MergeParams(method="average", weights=tuple(weights) if weights else "uniform")
    return plan_merges([weighed], inputs, None, steps)


def plan_inspection(directories: Sequence[Path], base: Path | None) -> Plan:
    """Check checkpoints that are to be measured as a merge of them would be checked.

    Raises BadInput naming what does not fit.
    """
    if len(directories) < 2 and base is None:
        raise BadInput(
            "nothing to compare", "1 checkpoint is named", "name another, or what it came from with --base"
        )
    sources = [
        open_weights(place, label) for place, label in zip(directories, labels_of(directories), strict=True)
    ]
    # The one merge of task vectors that a single checkpoint is enough for, and the one that needs no base.
    params = MergeParams(method="task_arithmetic" if base else "average")
    opened = open_weights(base, f"the base {base}") if base else None
    plan = make_plan([params], sources, opened, [step_of(directory) for directory in directories])
    if not plan.shapes:
        raise BadInput(directories[0], "holds no floating-point tensor", "name a directory with a model")
    return plan


def _changes(
    inputs: Sequence[WeightReader], base: WeightReader | None, names: Iterable[str]
) -> dict[str, Sequence[Changed]]:
    """Return the inputs by tensor, where all are adapters on the base and none holds the tensor whole."""
    on_base = [source for source in inputs if isinstance(source, Adapted) and source.base is base]
    if len(on_base) < len(inputs):
        return {}
    return {name: on_base for name in names if not any(source.replaces(name) for source in on_base)}


def plan_adapters(
    variants: Sequence[MergeParams], adapters: Sequence[Adapter], steps: Sequence[int], rates: Rates = ()
) -> AdapterPlan:
    """Check that these adapters can be merged by this method into an adapter.

    Raises BadInput naming what does not fit.
    """
    method = check_method(variants, len(adapters))
    for params in variants:
        method.check_span(params)
    check_alike(adapters)
    shapes = changed_shapes(adapters)
    dtypes = {name: written_dtype(factor_dtypes(name, adapters), variants[0]) for name in shapes}
    settings = make_settings(variants, steps, shapes, dtypes, Layers.of(shapes), rates)
    spec = adapter_spec(adapters, dtypes, variants[0])
    return AdapterPlan(adapters, None, settings, spec, method_of(settings), dtypes)


def make_settings(
    variants: Sequence[MergeParams],
    steps: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    layers: Layers,
    rates: Rates = (),
) -> list[Settings]:
    """Return each variant's settings, checked by the method, with values that vary over layers resolved."""
    found = [_settings(params, steps, shapes, dtypes, layers, rates) for params in variants]
    for settings in found:
        METHODS[settings.params.method].check(settings)
    return found


def _settings(
    params: MergeParams,
    steps: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    layers: Layers,
    rates: Rates,
) -> Settings:
    # cached, because methods ask for the same tensor once a block
    at = cache(lambda tensor: resolve(params, tensor, layers.position(tensor)))
    return Settings(params, at, steps, shapes, dtypes, rates)


def check_method(variants: Sequence[MergeParams], count: int) -> Method:
    """Return the method; raises BadInput where parameters or the number of checkpoints do not fit it."""
    name = variants[0].method
    method = METHODS[name]
    _check_count(name, method, count)
    for params in variants:
        _check_parameters(params, method)
    return method


def _check_count(name: str, method: Method, count: int) -> None:
    if count < method.at_least:
        noun = "checkpoint is" if count == 1 else "checkpoints are"
        raise BadInput(
            "nothing to merge", f"{count} {noun} named, and {name} needs {method.at_least}", "name more"
        )
    if method.at_most is not None and count > method.at_most:
        raise BadInput(
            "merge.method",
            f"{name} takes {method.at_most} checkpoints, but {count} are named",
            "name fewer, or choose another method",
        )


def _check_parameters(params: MergeParams, method: Method) -> None:
    given = {"lam": params.lam is not None, "weights": params.weights != "uniform"}
    for key, is_given in given.items():
        if is_given and key not in method.sections:
            raise BadInput(f"merge.{key}", f"method {params.method} does not read it", "leave it out")
