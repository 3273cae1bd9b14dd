"""The benchmark notices who else computes, takes ratios within a round and mixes no processors; nothing is timed."""
import math
import os
from itertools import chain, cycle, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scripts import load_script

from asymmbook.checkout import results_dir
from asymmbook.evidence import quiet, speeds
from asymmbook.evidence.rounds import take_rounds
from asymmbook.figures.comparison import plot_roofline, plot_speeds
from asymmbook.pages import speed

QUIET, BUSY = quiet.Look(0, 0, 0, 0, 1.0), quiet.Look(1000, 500, 0, 500, 1.0)


# was the machine left alone? -----------------------------------------------------------------------------------------
def proc(folder, ticks, own):
    """A /proc whose processors and whose process 7 have spent so many ticks."""
    (folder / "stat").write_text(f"cpu  {' '.join(map(str, ticks))} 99 99\ncpu0 1 2 3\n")
    for process in (os.getpid(), 7):
        (folder / str(process)).mkdir(exist_ok=True)
        line = " ".join(map(str, range(3, 14)))  # the fields behind the name; the last two are user's and system's
        used = own if process == 7 else (0, 0)
        (folder / str(process) / "stat").write_text(f"{process} (a ) b) {line} {used[0]} {used[1]} 0 0")
    return folder


def test_what_others_took_is_what_neither_idled_nor_was_ours(tmp_path):
    first = quiet.look([7], proc(tmp_path, [100, 0, 50, 800, 10, 0, 0, 5], (60, 40)))
    #                        user nice system idle iowait irq softirq steal
    second = quiet.look([7], proc(tmp_path, [150, 10, 60, 840, 60, 3, 2, 30], (100, 50)))
    seen = quiet.between(first, second)
    total = 50 + 10 + 10 + 40 + 50 + 3 + 2 + 25
    assert seen.steal == 25 / total and seen.others == (75 - 50) / total


@pytest.mark.parametrize(("steal", "others", "load", "disturbed"), [
    (0.0, 0.0, 9.0, False),  # the load of a minute ago is not this round's, where shares are known
    (0.03, 0.0, 0.0, True), (0.0, 0.06, 0.0, True), (0.02, 0.05, 0.0, False),
    (math.nan, math.nan, 3.0, False), (math.nan, math.nan, 3.1, True), (math.nan, math.nan, math.nan, False),
])
def test_the_rule_of_a_disturbed_round(steal, others, load, disturbed):
    assert quiet.Seen(load, steal, others).disturbed(threads=2) is disturbed


@pytest.mark.parametrize("content", [None, "", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"])
def test_without_the_kernels_counters_shares_are_not_recorded(tmp_path, content):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    seen = quiet.between(quiet.look([7], tmp_path), quiet.look([7], tmp_path))
    assert math.isnan(seen.steal) and math.isnan(seen.others)


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="no /proc/stat on this system")
def test_this_process_is_no_other():
    first, number = quiet.look(), 0
    while quiet.look().own < first.own + 20:  # 0.2 s of work
        number += sum(range(10_000))
    second = quiet.look()
    # a look reads the processors first and its own process then: a tick or two may lie in between
    assert second.own - first.own >= 20 and second.work >= first.work + 18
    assert quiet.between(first, second).others <= 1 - 18 / (second.total - first.total)


# rounds ---------------------------------------------------------------------------------------------------------------
def rounds_of(looks, rounds=3, **more):
    order = []

    def turn(name, seconds):
        return lambda: order.append(name) or seconds
    table = take_rounds({"a": turn("a", 1.0), "b": turn("b", 2.0)}, 2, rounds, watch=iter(looks).__next__, rest_s=0,
                        **more)
    return table, "".join(order)


def test_contestants_take_turns_and_every_second_round_goes_backwards():
    table, order = rounds_of(repeat(QUIET))
    assert order == "abbaab" and not table["disturbed"].any() and (table["tries"] == 1).all()
    assert table["round"].tolist() == [1, 1, 2, 2, 3, 3] and table["seconds"].tolist() == [1, 2] * 3


def test_a_disturbed_round_is_run_again():
    noisy = quiet.Look(1000, 900, 0, 500, 1.0)
    table, order = rounds_of(chain([QUIET, noisy], repeat(QUIET)))
    assert order == "ab" "ab" "ba" "ab" and not table["disturbed"].any()
    assert table.drop_duplicates("round")["tries"].tolist() == [2, 1, 1]


def test_rounds_that_stay_disturbed_are_kept_and_marked():
    noisy = quiet.Look(1000, 900, 0, 500, 1.0)
    table, _ = rounds_of(cycle([QUIET, noisy]), repeats=3)
    assert table["disturbed"].all() and table["others"].tolist() == [0.4] * 6
    assert table.drop_duplicates("round")["tries"].tolist() == [4, 1, 1], "three repeats a group, not a round"
    late, _ = rounds_of(cycle([QUIET, noisy]), may_repeat=lambda: False)
    assert (late["tries"] == 1).all() and late["disturbed"].all()


# tables ---------------------------------------------------------------------------------------------------------------
def recorded(speeds_by_case, cpu="A", network="asymmnet_large", size=64):
    """Rounds as bench.py records them, of {case: images per second of each round}."""
    return pd.DataFrame([
        {"cpu": cpu, "network": network, "size": size, "batch": 32, "width": 1.0, "case": case, "round": i + 1,
         "images_per_s": value, "load": 1.0, "steal": 0.0, "others": 0.0, "disturbed": i == 0, "tries": 1}
        for case, values in speeds_by_case.items() for i, value in enumerate(values)])


def test_ratios_are_taken_within_a_round():
    """The machine was fast in one round and slow in two: 3 times in the median round, 2.5 by the medians."""
    rounds = recorded({"stock": [2, 1, 1, 10, 2], "ours": [6, 3, 3, 30, 5]})
    found = speeds.ratio(rounds.head(0), rounds, "ours", "stock", 64)
    assert found == (3, 2.5, 3, 5) and speeds.shown(found) == "3.00 (2.50–3.00)"
    row = speeds.summarise(rounds).set_index("case").loc["ours"]
    assert (row["images_per_s"], row["low"], row["high"]) == (5, 3, 30)
    assert tuple(row[["ratio_to_stock", "ratio_low", "ratio_high"]]) == (3, 2.5, 3)
    assert (row["rounds"], row["disturbed"]) == (5, 1)


def test_what_was_not_measured_is_missing():
    rounds = recorded({"ours": [6, 3]})
    assert math.isnan(speeds.ratio(rounds, rounds, "ours", "stock", 64).middle)
    assert speeds.shown(speeds.Ratio()) == "" and speeds.summarise(rounds)["ratio_to_stock"].isna().all()
    old = pd.DataFrame({"cpu": "A", "network": "asymmnet_large", "size": 64, "batch": 32, "width": 1.0,
                        "case": ["ours", "stock"], "images_per_s": [9.0, 2.0]})
    found = speeds.ratio(old, rounds.head(0), "ours", "stock", 64)
    assert speeds.shown(found) == "4.50" and found.rounds == 0


def rows_of(rounds):
    """Rows of bench.csv for rounds of one processor."""
    same = {"peak_gflops": 100.0, "bandwidth_gb_s": 10.0, "cores": 2, "threads": 2, "python": "3", "commit": "1234567",
            "kernels": speeds.kernels_digest(), "versions": "{}"}
    return speeds.with_memory(speeds.summarise(rounds).assign(**same, peak_mib=[200.0, 100.0]))


def test_a_measurement_replaces_the_rows_of_its_processor_alone(tmp_path):
    first, second = recorded({"stock": [1], "ours": [3]}, "A"), recorded({"stock": [1], "ours": [4]}, "B, C")
    speeds.record(rows_of(first), first, tmp_path)
    speeds.record(pd.DataFrame([{"case": "book", "cpu": "A", "seconds": 60.0}]), folder=tmp_path)
    speeds.record(rows_of(second), second, tmp_path)
    before = {name: (tmp_path / name).read_text() for name in ("bench.csv", "bench-rounds.csv")}
    again = recorded({"stock": [1, 1], "ours": [5, 5]}, "A")
    table = speeds.record(rows_of(again), again, tmp_path)
    assert speeds.processors(table) == ["A", "B, C"], "the one that was measured last comes first"
    rounds = speeds.read_rounds(tmp_path)
    assert speeds.of_processor(table, "A")["images_per_s"].dropna().tolist() == [1, 5] and len(rounds) == 6
    assert table.loc[table["case"] == "book", "seconds"].tolist() == [60], "the book is measured apart"
    for name, text in before.items():
        kept = [line for line in text.splitlines() if '"B, C"' in line]
        assert kept and set(kept) <= set((tmp_path / name).read_text().splitlines())
    with pytest.raises(ValueError, match="no row of processor 'D'; there are A, B, C"):
        speeds.of_processor(table, "D")


# the page -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def two_processors(tmp_path):
    """Tables of two processors: on A ours is ahead of tuned PyTorch, on B it is not."""
    for cpu, ours in (("A", 120.0), ("B", 90.0)):
        rounds = recorded({"stock": [10, 11], "ours": [ours, ours * 1.1]}, cpu)
        torch = recorded({"torch_tuned": [100, 100]}, cpu)
        rows = rows_of(rounds)
        speeds.record(pd.concat([rows, rows.tail(1).assign(case="torch_tuned", images_per_s=100.0)]),
                      pd.concat([rounds, torch]), tmp_path)
    return speeds.read_speeds(tmp_path), speeds.read_rounds(tmp_path)


def test_targets_are_judged_for_each_processor(two_processors):
    goals = speed.goals(*two_processors).reset_index(names="target")
    row = goals[goals["target"] == "speed of PyTorch, tuned, 64 px"].set_index("processor")
    assert row.loc["A", "measured"] == "1.26 (1.20–1.32)" and row["met"].to_dict() == {"B": "no", "A": "yes"}
    assert (goals.loc[goals["target"].str.contains("256 px"), "met"] == "not measured yet").all()
    assert (goals.loc[goals["met"] == "not measured yet", "measured"] == "").all()
    assert speed.verdict(pd.Series(["yes", "no", "not measured yet"])).startswith(
        "Met: 1 of 2 targets that were measured. Not measured: 1.")
    assert speed.verdict(pd.Series(["yes"])) == "Met: 1 of 1 targets that were measured."


def test_the_page_names_the_processors_and_their_kernels(two_processors):
    table, rounds = two_processors
    assert speed.seen(table).startswith("2 processors have been measured: B and A.")
    assert speed.facts(table).loc["kernels"].tolist() == ["those of this book"] * 2
    assert speed.facts(table.assign(kernels="0123")).loc["kernels", "A"] == "earlier ones"
    assert speed.facts(table.assign(kernels=np.nan)).loc["kernels", "A"] == "not recorded"
    assert "A: 2 rounds of each group; 1 of 2 stayed disturbed." in speed.rounds_sentence(table, rounds)
    assert "A: the rounds were not kept" in speed.rounds_sentence(table, rounds.head(0))


def test_tables_of_the_page(two_processors):
    table, rounds = two_processors
    part, own = speeds.of_processor(table, "A"), rounds[rounds["cpu"] == "A"]
    assert speed.comparison(part, own).to_dict() == {"64 px": {
        "stock Paddle": "1.00 (1.00–1.00)", "ours": "12.00 (12.00–12.00)", "PyTorch, tuned": "9.55 (9.09–10.00)"}}
    assert speed.baselines(part, own).index.tolist() == ["AsymmNet-Large"]
    assert len(speed.growth(part)) == 1 and speed.used(part, 256).empty
    used = speed.used(part, 64).loc["ours"]
    assert used["of the peak"] == pytest.approx(used["GFLOP/s"] / 100)


@pytest.mark.parametrize(("workers", "said"), [([11, 12], "faster at 64 px"), ([9, 12], "starts none by itself")])
def test_whether_threads_that_read_pay(workers, said):
    rounds = recorded({"ours_data": [10, 10], "ours_workers": workers})
    assert said in speed.workers_sentence(rounds, rounds)
    assert "not measured" in speed.workers_sentence(rounds, rounds.head(0))


# what is recorded -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def table():
    return speeds.read_speeds()


def test_every_processor_has_the_training_at_every_size(table):
    for cpu in speeds.processors(table):
        rows = speeds.training(speeds.of_processor(table, cpu), None)
        assert set(rows.loc[rows["case"] == "ours", "size"]) >= {64, 128, 256}
        assert {"stock", "ours", "ours_data", "data"} <= set(rows.loc[rows["network"] == speeds.ASYMMNET, "case"])
        assert not rows.duplicated(["network", "case", "size"]).any()


def test_speeds_lie_in_their_ranges_and_say_where_they_come_from(table):
    rows = table[table["case"] != speeds.BOOK]
    assert (rows["low"] <= rows["images_per_s"]).all() and (rows["images_per_s"] <= rows["high"]).all()
    columns = ["network", "cores", "threads", "versions", "commit", "rounds", "peak_gflops", "bandwidth_gb_s",
               "peak_mib"]
    assert rows[columns].notna().all(axis=None) and (table.loc[table["case"] == speeds.BOOK, "seconds"] > 0).all()


def test_rows_follow_from_their_rounds(table):
    """Of each processor whose rounds are kept, recorded tables are what the rounds give."""
    rounds = speeds.read_rounds()
    assert set(rounds["cpu"]) <= set(table["cpu"])
    for cpu, part in rounds.groupby("cpu"):
        made = speeds.summarise(part).set_index(["network", "case", "size", "batch", "width"])
        kept = table[(table["cpu"] == cpu) & (table["case"] != speeds.BOOK)].set_index(made.index.names)
        columns = ["images_per_s", "low", "high", "rounds", "disturbed", "ratio_to_stock", "ratio_low", "ratio_high"]
        np.testing.assert_allclose(kept[columns].astype(float), made.loc[kept.index, columns].astype(float), rtol=1e-3)


def test_old_ratios_are_those_of_two_medians(table):
    rounds = speeds.read_rounds()
    old = speeds.training(table[~table["cpu"].isin(rounds["cpu"])], None).dropna(subset="ratio_to_stock")
    for row in old.itertuples():
        assert speeds.quotient(old[old["cpu"] == row.cpu], row.case, "stock", row.size, row.network) == pytest.approx(
            row.ratio_to_stock, rel=1e-3)


def test_no_word_of_the_bars_leaves_the_figure(table):
    """The cases have long names, which leave little room for the axis and its label."""
    rows = table[(table["size"] == 64) & table["batch"].eq(32)]
    for words in (speed.CASES, {case: "图形" * 9 for case in speed.CASES}):
        figure = plot_speeds(rows.assign(case=rows["case"].map(words)), 64)
        figure.draw_without_rendering()
        (axis,) = figure.axes
        for text in (axis.title, axis.xaxis.label, *axis.get_yticklabels()):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text.get_text()


def test_figures_are_labelled(table):
    rows = speeds.training(speeds.of_processor(table))
    for figure in (plot_speeds(rows, 64), plot_roofline({"stock": (1.0, 2.0)}, 100, 10)):
        assert figure.axes[0].get_title() and figure.axes[0].get_xlabel()
    with pytest.raises(ValueError, match="no row for 7 px"):
        plot_speeds(rows, 7)
    assert (results_dir() / "bench.csv").is_file()


# benchmarks/bench.py --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bench():
    return load_script("benchmarks/bench.py")


def test_what_is_timed_answers_every_target(bench):
    timed = {case for group in bench.plan(quick=False, has_torch=True) for case in group}
    wanted = {(target.network, case, target.size, 32, 1.0) for target in speed.TARGETS
              for case in ("ours", target.other or "ours")}
    assert wanted <= timed and {case[1] for case in timed} == set(speed.CASES)
    for group in bench.plan(quick=False, has_torch=True):
        assert len(group) == len(set(group)) and len({case[0] for case in group}) == 1, "networks apart"
    without = [case for group in bench.plan(quick=False, has_torch=False) for case in group]
    assert set(without) == {case for case in timed if "torch" not in case[1]}


def test_a_run_is_written_with_where_it_ran(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "results_dir", lambda: tmp_path)
    rounds = recorded({"stock": [10, 11], "ours": [60, 65]}).drop(columns="cpu")
    facts = {("asymmnet_large", case, 64, 32, 1.0): {"steps": 3, "peak_mib": peak}
             for case, peak in (("stock", 400.0), ("ours", 100.0))}
    bench.write(rounds, facts, {"cpu": "A", "cores": 2, "commit": "12345678", "peak_gflops": 100.0})
    row = speeds.read_speeds().set_index("case").loc["ours"]
    assert (row["cpu"], row["commit"], row["steps"], row["peak_mib"], row["memory_to_stock"]) == (
        "A", "12345678", 3, 100, 0.25)
    assert len(speeds.read_rounds()) == 4 and set(speeds.read_rounds()["cpu"]) == {"A"}


def test_a_turn_is_sized_by_time(bench):
    class Quick(bench.Worker):
        def __init__(self, *answers):
            self.answers, self.asked = list(answers), []

        def ask(self, steps):
            self.asked.append(steps)
            return [self.answers.pop(0)] * steps
    for answers, asked, steps in (((5.0,), [1], 1), ((1.0, 0.125), [1, 2], 4), ((1.0, 0.7), [1, 2], 1)):
        worker = Quick(*answers)
        worker.warm_up()
        assert (worker.asked, worker.steps) == (asked, steps)


@pytest.mark.slow
def test_processes_answer_until_they_are_ended(bench, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table, facts = bench.measure([("asymmnet_small", case, 32, 2, 1.0) for case in ("ours", "stock")], 2, 0.0)
    assert len(table) == 4 and (table["images_per_s"] > 0).all() and (table["tries"] == 1).all()
    assert all(fact["peak_mib"] > 50 and fact["steps"] >= 1 for fact in facts.values())
    assert "0 rounds were run again" in bench.told(table)
    with pytest.raises(RuntimeError, match="benchmark case no_network stock 32 2 1.0 died"):
        bench.measure([("no_network", "stock", 32, 2, 1.0)], 1, 0.0)
