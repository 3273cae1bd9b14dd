"""Tables are stored whole, over what was there, and read as they were."""
import pandas as pd
import pytest

from asymmlib.base.tables import read_table, replace_rows, write_table


def test_a_table_takes_the_place_of_any_other(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("other,columns\n1,2\n")
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 20_000.0], "count": [1, 2]})
    write_table(table, path)
    assert path.read_bytes() == b"name,value,count\na,0.33333,1\nb,20000,2\n" and not list(tmp_path.glob("*.part"))
    assert read_table(path, ("name", "count"))["value"].tolist() == pytest.approx([0.33333, 20_000])
    with pytest.raises(ValueError, match="no column engine"):
        read_table(path, ("engine",))


def test_rows_take_the_place_of_those_that_are_named(tmp_path):
    """Of the others no letter changes, whatever pandas would make of it; new columns are empty there."""
    path = tmp_path / "table.csv"
    first = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 2.0]})
    replace_rows(first, path, lambda old: old["name"] == "a")
    assert path.read_text() == "name,value\na,0.33333\nb,2\n"
    path.write_text("name,value\na,1\nNone,007\nnan,\n")
    replace_rows(first.assign(more="x"), path, lambda old: old["name"] == "a")
    assert path.read_text() == "name,value,more\na,0.33333,x\nb,2,x\nNone,007,\nnan,,\n"
    path.write_text("name,value\na,1\n,2\n")
    with pytest.raises(ValueError, match="rows without a value of name"):
        replace_rows(first, path, lambda old: old["name"] == "a", ("name",))
    assert path.read_text() == "name,value\na,1\n,2\n"
