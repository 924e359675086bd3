import io

from rich.console import Console

from tasks.doctor.finding import Finding
from tasks.doctor.findings_table import findings_text

FOUND = [
    Finding("Clock", "MLflow server", "90 s ahead", "warning", "synchronise"),
    Finding("Versions", "git", "2.39.5"),
    Finding("Disk", "/", "1.0 GB free", "problem", "free some space"),
    Finding("Versions", "packages", "26 of 26"),
]


def test_findings_are_grouped_aligned_and_remedies_stand_below() -> None:
    assert findings_text(FOUND).plain == (
        "Versions\n"
        "  ✓ git            2.39.5\n"
        "  ✓ packages       26 of 26\n"
        "Disk\n"
        "  ✗ /              1.0 GB free\n"
        "    → free some space\n"
        "Clock\n"
        "  ! MLflow server  90 s ahead\n"
        "    → synchronise\n"
        "\n1 problem, 1 warning; 2 ok."
    )


def test_all_well_says_so() -> None:
    assert findings_text(FOUND[1:2]).plain.endswith("\n\nAll is well; 1 ok.")


def test_brackets_are_text_and_no_colour_goes_into_a_file() -> None:
    file = io.StringIO()
    Console(file=file).print(
        findings_text([Finding("GPU", "[bold]", "x [/red] " + "y" * 200)]), soft_wrap=True
    )
    assert file.getvalue().splitlines()[1] == "  ✓ [bold]  x [/red] " + "y" * 200
