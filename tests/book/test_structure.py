"""The library stays small where it is taught: limits that a change may not pass unseen (directions: `make lint`)."""
import grimp

from asymmbook.checkout import project_root

LIBRARY = project_root() / "asymmlib"


def test_whoever_reads_the_callbacks_needs_five_more_modules():
    graph = grimp.build_graph("asymmlib", exclude_type_checking_imports=True, cache_dir=None)
    needed = {name for name in graph.find_upstream_modules("asymmlib.callbacks") if ".base." not in name}
    assert len(needed) <= 5, sorted(needed)


def test_the_taught_core_can_be_read_whole():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY.glob("*.py")}
    assert sum(lines.values()) <= 2300, lines
