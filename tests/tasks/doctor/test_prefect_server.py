from tasks.doctor.prefect_server import (
    Deployment,
    Limit,
    Running,
    judge_deployments,
    judge_limits,
    judge_running,
    judge_version,
)


def test_another_release_on_the_server_is_a_warning() -> None:
    assert judge_version("3.8.8", "3.8.8").level == "ok"
    assert judge_version("3.8.1", "3.8.8").level == "warning"


def test_whoever_should_serve_is_named() -> None:
    nightly = ("0 3 * * * UTC",)
    (missing,) = judge_deployments([])
    served, alone, pooled = judge_deployments([
        Deployment("watch/watch", True, None, nightly), Deployment("watch/watch", False, None, ()),
        Deployment("watch/watch", False, "loreline", nightly),
    ])  # fmt: skip
    assert (missing.level, missing.remedy) == ("warning", "loreline serve")
    assert (served.level, served.found) == ("ok", "is served (0 3 * * * UTC)")
    assert (alone.level, alone.remedy) == ("warning", "loreline serve")
    assert pooled.remedy == "prefect worker start --pool loreline"


def test_a_slot_is_leaked_only_when_nothing_runs_and_only_ours_count() -> None:
    limits = [Limit("loreline-host-cpu", 1, 1), Limit("loreline-host-cuda-0", 0, 0), Limit("database", 1, 1)]
    leaked, closed = judge_limits(limits, running=0)
    assert leaked.remedy == "prefect gcl update loreline-host-cpu --active-slots 0"
    assert closed.remedy == "prefect gcl update loreline-host-cuda-0 --limit 1"
    assert judge_limits(limits, running=1) == [closed]


def test_a_run_that_fell_silent_is_named() -> None:
    runs = [Running("quick-fox", "1", 100.0), Running("dead-owl", "2", 1800.0)]
    summary, silent = judge_running(runs, every=180)
    assert summary.found == "1 running"
    assert (silent.subject, silent.level) == ("dead-owl", "warning")
    assert "30 min" in silent.found
