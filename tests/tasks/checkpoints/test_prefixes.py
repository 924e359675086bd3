"""Tensors are matched where names differ in the wrapping classes alone, and never by guess."""

import pytest

from tasks.checkpoints.prefixes import names_as_in

CAUSAL = ["model.layers.0.w", "model.embed_tokens.weight", "lm_head.weight"]


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        (CAUSAL, CAUSAL, {}),
        (
            CAUSAL,
            ["layers.0.w", "embed_tokens.weight"],
            {"layers.0.w": "model.layers.0.w", "embed_tokens.weight": "model.embed_tokens.weight"},
        ),
        (["transformer.h.0.w"], ["h.0.w"], {"h.0.w": "transformer.h.0.w"}),
        (["h.0.w"], ["transformer.h.0.w"], {"transformer.h.0.w": "h.0.w"}),
        (
            ["model.language_model.layers.0.w", "model.visual.w", "lm_head.weight"],
            ["language_model.model.layers.0.w", "visual.w", "language_model.lm_head.weight"],
            {
                "language_model.model.layers.0.w": "model.language_model.layers.0.w",
                "visual.w": "model.visual.w",
                "language_model.lm_head.weight": "lm_head.weight",
            },
        ),
        (["model.w", "w"], ["w"], {}),
        (CAUSAL, ["encoder.layers.0.w"], {}),
    ],
)
def test_names_meet_without_the_wrappers(
    wanted: list[str], names: list[str], expected: dict[str, str]
) -> None:
    assert names_as_in(wanted, names) == expected
