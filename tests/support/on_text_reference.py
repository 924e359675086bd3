"""Merges by what text says, computed with torch in float64 on whole models."""

from pathlib import Path

import numpy as np
import torch

from tasks.parameters.merge import AdamergingParams


def by_hand(directories: list[Path], texts: list[str]) -> dict[str, np.ndarray]:
    """Merge with torch.autograd in float64: the paper's formula, information divided by its norm."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    thetas, information = [], []
    for directory in directories:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        named = dict(model.named_parameters())
        F = {name: np.zeros(tuple(parameter.shape)) for name, parameter in named.items()}
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            loss = model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
            for name, gradient in zip(F, torch.autograd.grad(loss, list(named.values())), strict=True):
                F[name] += gradient.numpy() ** 2
        norm = np.sqrt(np.mean(np.concatenate([own.ravel() for own in F.values()]) ** 2))
        information.append({name: np.maximum(own / norm, 1e-6) for name, own in F.items()})
        thetas.append({name: parameter.detach().numpy() for name, parameter in named.items()})
    return {
        name: sum(F[name] * theta[name] for F, theta in zip(information, thetas, strict=True))
        / sum(F[name] for F in information)
        for name in thetas[0]
    }


def by_regression(directories: list[Path], texts: list[str], alpha: float) -> dict[str, np.ndarray]:
    """Merge linear layers by the normal equations on recorded inputs, and average the rest, in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    thetas, grams = [], []
    for directory in directories:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        own: dict[str, np.ndarray] = {}
        for name, layer in model.named_modules():
            if type(layer).__name__ == "Linear" and name != "lm_head":

                def add(
                    layer: object, x: tuple[torch.Tensor], y: object,
                    key: str = f"{name}.weight", own: dict[str, np.ndarray] = own,
                ) -> None:  # fmt: skip
                    inputs = x[0][0].detach().numpy()
                    own[key] = own.get(key, 0) + inputs.T @ inputs

                layer.register_forward_hook(add)
        for text in texts:
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))
        grams.append({n: alpha * G + (1 - alpha) * np.diag(np.diag(G)) for n, G in own.items()})
        thetas.append({name: parameter.detach().numpy() for name, parameter in model.named_parameters()})
    return {
        name: np.linalg.solve(
            sum(G[name] for G in grams),
            sum(G[name] @ theta[name].T for G, theta in zip(grams, thetas, strict=True)),
        ).T
        if name in grams[0]
        else np.mean([theta[name] for theta in thetas], axis=0)
        for name in thetas[0]
    }


def by_descent(
    base: Path, directories: list[Path], texts: list[str], params: AdamergingParams
) -> dict[str, np.ndarray]:
    """Merge with coefficients that torch's Adam finds through functional_call, in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    origin, *models = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.float64).eval()
        for place in (base, *directories)
    )
    ids = [torch.tensor([AutoTokenizer.from_pretrained(base)(text)["input_ids"]]) for text in texts]
    start = {name: own.detach() for name, own in origin.named_parameters()}
    lambdas = {
        name: torch.full((len(models),), 1 / len(models), dtype=torch.float64, requires_grad=True)
        for name in start
    }

    def theta() -> dict[str, torch.Tensor]:
        vectors = {
            name: [dict(model.named_parameters())[name] - own for model in models]
            for name, own in start.items()
        }
        return {
            name: own + sum(c * delta.detach() for c, delta in zip(lambdas[name], vectors[name], strict=True))
            for name, own in start.items()
        }

    adam = torch.optim.Adam(lambdas.values(), lr=params.rate)
    for _ in range(params.steps):
        given = theta()
        scores = [
            torch.func.functional_call(origin, given, (), {"input_ids": own}).logits[0, :-1] for own in ids
        ]
        log_p = torch.cat(scores).log_softmax(-1)
        adam.zero_grad()
        (-(log_p.exp() * log_p).sum(-1)).mean().backward()
        adam.step()
    return {name: own.detach().numpy() for name, own in theta().items()}
