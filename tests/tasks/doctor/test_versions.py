from tasks.doctor.versions import CONSTRAINTS, check_versions, read_pins, wrong_pins


def test_every_pin_is_read_with_its_reason() -> None:
    text = CONSTRAINTS.read_text()
    pins = read_pins(text)
    assert len(pins) == sum("==" in line for line in text.splitlines())
    assert pins["fastapi"].version == "0.150.0"
    assert "422" in pins["fastapi"].reason
    assert "cron" in pins["sqlalchemy"].reason


def test_what_breaks_silently_is_a_problem_and_another_release_a_warning() -> None:
    pins = read_pins(
        "fastapi==0.150.0  # Prefect: 422\nrich==15.0.0\ntorch==2.13.0\nScipy==1.17.1\nyarl==1.0\n"
    )
    installed = {"fastapi": "0.151.1", "rich": "15.0.1", "torch": "2.13.0+cu130", "scipy": None, "other": "1"}
    found = {finding.subject: finding for finding in wrong_pins(pins, installed)}
    assert {name: finding.level for name, finding in found.items()} == {
        "fastapi": "problem", "rich": "warning", "scipy": "problem",
    }  # fmt: skip
    assert found["fastapi"].found == "0.151.1 is installed, 0.150.0 was tried (Prefect: 422)"
    assert found["rich"].remedy == "pip install --constraint constraints.txt rich==15.0.0"


def test_the_packages_that_loreline_names_are_compared() -> None:
    found = {finding.subject: finding for finding in check_versions()}
    assert {"Python", "packages", "git"} <= found.keys()
    count = int(found["packages"].found.split()[0])
    assert count + len(found) - 3 >= 24
