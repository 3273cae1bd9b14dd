"""The README's numbers and commands are true."""
import re
from pathlib import Path

import pytest

from asymmbook.checkout import project_root
from asymmlib.complexity import formula

README = (project_root() / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("variant", "width"), [("large", 1.0), ("large", 0.5), ("small", 1.0)])
def test_table_of_counts(variant, width):
    row = next(line for line in README.splitlines() if line.startswith(f"| AsymmNet-{variant.title()} ×{width}"))
    _, _, _, macs, _, params, _ = (cell.strip() for cell in row.split("|"))
    cost = formula(variant, width, 1)
    assert macs == f"{cost.macs / 1e6:.1f} M" and params == f"{cost.params / 1e6:.2f} M"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_and_files_exist(name):
    text, makefile = ((project_root() / file).read_text(encoding="utf-8") for file in (name, "Makefile"))
    for target in set(re.findall(r"\bmake ([a-z]+)", text)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, re.M), f"{name} names `make {target}`"
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (project_root() / path).exists(), f"{name} links {path}"
    assert Path(project_root() / "environment.yml").exists()
