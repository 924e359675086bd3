"""An environment to train in, as a team has it: transformers of another release, torch, and nothing of Loreline's."""

import subprocess
import sys
import sysconfig
from pathlib import Path


class TrainingEnvironment:
    """A virtual environment that borrows this one's torch, which is too large to install again.

    Raises subprocess.CalledProcessError, with what pip said, when the package index cannot be reached.
    """

    def __init__(self, place: Path, *requirements: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        self.python = place / "bin" / "python"
        ours, theirs = Path(sysconfig.get_path("purelib")), self._site_packages()
        for borrowed in (
            "torch",
            "torchgen",
            "functorch",
            *(path.name for path in ours.glob("torch-*.dist-info")),
        ):
            (theirs / borrowed).symlink_to(ours / borrowed)
        self.pip(*requirements)

    def pip(self, *requirements: str) -> None:
        """Install what is given."""
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)

    def _site_packages(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        said = subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True)
        return Path(said.stdout.strip())
