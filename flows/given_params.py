"""The parameters that a flow run was given, as far as whoever starts flow runs may choose them."""

from prefect.runtime import deployment

from tasks.base.errors import BadInput
from tasks.parameters.params import Params, params_file, read_params


def given_params(params: Params | None) -> Params:
    """Return the parameters of a flow run, or params.yaml's where none are given.

    Raises BadInput where a run of a deployment names another directory of task files than params.yaml on this
    machine: task files can run Python.
    """
    if params is None:
        return read_params(params_file())
    place = params.evaluate.include_path
    if deployment.id is not None and place and place != read_params(params_file()).evaluate.include_path:
        raise BadInput(
            "evaluate.include_path",
            f"{place} is not that of {params_file().name} on this machine, and task files can run Python",
            "name it there, or leave it out",
        )
    return params
