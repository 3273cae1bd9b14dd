"""What the notebooks use beside the library: asymmbook.pages.notebook."""
from asymmbook.pages.notebook import COLUMNS, settled


def test_the_time_left_is_left_out_and_all_else_is_printed(capsys):
    with settled():
        print("epoch   1/3  loss 3.089  38 images/s  0:00:10 left", flush=True)
        print("epoch   2/3  38 images/s  1:02:03 left")
        print("two left")
    print("0:00:10 left")
    assert capsys.readouterr().out.splitlines() == [
        "epoch   1/3  loss 3.089  38 images/s", "epoch   2/3  38 images/s", "two left", "0:00:10 left"]


def test_words_of_one_line_stay_apart(capsys):
    with settled():
        print("---", "ResNet50")
    assert capsys.readouterr().out == "--- ResNet50\n"


def test_lines_are_broken_where_a_page_ends(capsys):
    words = " ".join(["word"] * 40)
    with settled():
        print("  short,  as it is\n", words, "x" * 99, sep="\n")
    first, blank, *rest = capsys.readouterr().out.splitlines()
    assert (first, blank) == ("  short,  as it is", "")
    assert max(map(len, rest[:-1])) <= COLUMNS and " ".join(" ".join(rest).split()) == f"{words} {'x' * 99}"
