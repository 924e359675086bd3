from tasks.registry.runs import only


def test_nothing_found_is_created_once() -> None:
    things: list[str] = []
    assert only(lambda: list(things), lambda: things.append("new") or "new", things.remove) == "new"  # type: ignore[func-returns-value]
    assert things == ["new"]


def test_oldest_stays_and_surplus_goes() -> None:
    things = ["oldest", "twin", "triplet"]
    assert only(lambda: list(things), lambda: "never", things.remove) == "oldest"
    assert things == ["oldest"]


def test_what_the_search_does_not_show_yet_is_still_used() -> None:
    assert only(list, lambda: "new", lambda _: None) == "new"
