"""The name for the record: git's, else the login's."""

from pathlib import Path

import pytest

from tasks.registry.people import whoami


def test_git_s_address_goes_before_the_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\temail = ann@example.org\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert whoami() == "ann@example.org"
    config.write_text("")
    monkeypatch.setenv("LOGNAME", "bob")
    assert whoami().startswith("bob@")
    monkeypatch.setenv("PATH", "")  # no git
    assert whoami().startswith("bob@")
