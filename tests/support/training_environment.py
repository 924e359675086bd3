"""An environment to train in, as a team has it: transformers of another release, torch, and nothing of Loreline's."""

import subprocess
import sys
import sysconfig
from pathlib import Path

NEEDED = ("fsspec", "jinja2", "networkx", "psutil", "sympy", "typing_extensions")
"""By torch and accelerate, beside what transformers brings."""


class TrainingEnvironment:
    """A virtual environment that borrows this one's torch, which is too large to install again.

    Raises subprocess.CalledProcessError, with what pip said, when the package index cannot be reached.
    """

    def __init__(self, place: Path, transformers: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        self.python = place / "bin" / "python"
        self._install(f"transformers=={transformers}", *NEEDED)
        self._install("--no-deps", "accelerate")  # pip would add a torch of its own choice
        ours, theirs = Path(sysconfig.get_path("purelib")), self._site_packages()
        for name in (
            "torch",
            "torchgen",
            "functorch",
            *(path.name for path in ours.glob("torch-*.dist-info")),
        ):
            (theirs / name).symlink_to(ours / name)

    def _install(self, *requirements: str) -> None:
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)

    def _site_packages(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        said = subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True)
        return Path(said.stdout.strip())
