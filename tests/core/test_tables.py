"""Tables are stored whole, over what was there, and read as they were."""
import pandas as pd
import pytest

from asymmlib.base.tables import read_table, write_table


def test_a_table_takes_the_place_of_any_other(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("other,columns\n1,2\n")
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 20_000.0], "count": [1, 2]})
    write_table(table, path)
    assert path.read_bytes() == b"name,value,count\na,0.33333,1\nb,20000,2\n" and not list(tmp_path.glob("*.part"))
    assert read_table(path, ("name", "count"))["value"].tolist() == pytest.approx([0.33333, 20_000])
    with pytest.raises(ValueError, match="no column engine"):
        read_table(path, ("engine",))
