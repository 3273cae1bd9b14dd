"""What the notebooks use beside the library: asymmbook.pages.notebook."""
from asymmbook.pages.notebook import settled


def test_the_time_left_is_left_out_and_all_else_is_printed(capsys):
    with settled():
        print("epoch   1/3  loss 3.089  38 images/s  0:00:10 left", flush=True)
        print("epoch   2/3  38 images/s  1:02:03 left")
        print("two left")
    print("0:00:10 left")
    assert capsys.readouterr().out.splitlines() == [
        "epoch   1/3  loss 3.089  38 images/s", "epoch   2/3  38 images/s", "two left", "0:00:10 left"]
