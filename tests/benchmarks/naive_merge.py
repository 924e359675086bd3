"""Average the naive way, as one would write it in ten minutes: everything in memory. OUT CHECKPOINT..."""

import sys

from safetensors.torch import load_file, save_file


def main(out: str, *inputs: str) -> None:
    models = [load_file(f"{directory}/model.safetensors") for directory in inputs]
    merged = {}
    for name, first in models[0].items():
        thetas = [model[name].float() for model in models]
        merged[name] = (sum(thetas) / len(thetas)).to(first.dtype)
    save_file(merged, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
