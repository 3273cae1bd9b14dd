"""The small mistakes of `make mutants` can be made of the core as it is today."""
import ast
import random

import mutants


def test_every_operator_has_another():
    kinds = {kind for base in (ast.operator, ast.boolop, ast.cmpop) for kind in base.__subclasses__()
             if getattr(ast, kind.__name__) is kind}  # Paddle brings some of its own
    assert set(mutants.SWAPS) == kinds and all(other is not kind for kind, other in mutants.SWAPS.items())


def test_each_mutant_is_another_module():
    found = mutants.mutants()
    assert len(found) > 2000
    for name in random.Random(1).sample(sorted(found), 20):
        text = ast.unparse(ast.parse((mutants.ROOT / name[0]).read_text(encoding="utf-8")))
        changed = found[name]()
        assert changed != text and ast.parse(changed)
