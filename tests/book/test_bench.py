"""Every claim of the page about speed has its row in results/bench.csv; nothing is timed here."""
import pandas as pd
import pytest

from asymmbook.checkout import results_dir
from asymmbook.figures.comparison import plot_roofline, plot_speeds

CASES = ["stock", "article", "ours", "ours_data", "data", "mobilenet_v2", "mobilenet_v3_large"]


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(results_dir() / "bench.csv")


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("case", CASES)
def test_every_case_is_measured_at_every_size(table, case, size):
    rows = table[(table["case"] == case) & (table["size"] == size)]
    assert len(rows) and (rows["low"] <= rows["images_per_s"]).all() and (rows["images_per_s"] <= rows["high"]).all()


def test_provenance_is_there(table):
    columns = ["cpu", "cores", "threads", "versions", "commit", "rounds", "peak_gflops", "bandwidth_gb_s"]
    assert table[columns].notna().all(axis=None) and table.loc[table["size"].notna(), "peak_mib"].notna().all()


def test_building_the_book_is_timed(table):
    (seconds,) = table.loc[table["case"] == "book", "seconds"]
    assert seconds > 0


def test_ratios_follow_from_the_speeds(table):
    stock = table[table["case"] == "stock"].set_index("size")["images_per_s"]
    rows = table[table["size"].isin(stock.index)]
    wanted = rows["images_per_s"] / rows["size"].map(stock)
    assert ((rows["ratio_to_stock"] / wanted - 1).abs() < 1e-3).all()


def test_figures_are_labelled(table):
    for figure in (plot_speeds(table, 64), plot_roofline({"stock": (1.0, 2.0)}, 100, 10)):
        assert figure.axes[0].get_title() and figure.axes[0].get_xlabel()
    with pytest.raises(ValueError, match="no row for 7 px"):
        plot_speeds(table, 7)
