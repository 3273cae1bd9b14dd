"""What 8 bits save and cost: the released networks as float32, float16 and int8 files, on pictures and on the clock.

`record` writes results/int8.csv (bytes, accuracy on the test pictures) and results/int8-layers.csv (one layer at a
time), also for the MobileNetV2 that was released before, trained from random weights, where its files are given;
`record_latency` writes results/int8-latency.csv, for which the machine should have nothing else to do.
"""
import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence.int8_layers import clear_still_channels, layer_by_layer
from asymmbook.evidence.statistics import compare, wilson
from asymmlib.base.tables import replace_rows, write_table
from asymmlib.deploy.engines import Runner, run_onnx, run_openvino
from asymmlib.deploy.export import export_classifier
from asymmlib.deploy.quantise import answers_of
from asymmlib.deploy.quantisers import CALIBRATION, calibration_pictures, onnx_int8, openvino_int8
from asymmlib.deploy.timing import machine, spread, take_turns
from asymmlib.runs import load_pretrained
from asymmlib.weights.released import RELEASED

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared
    from asymmlib.runs import Classifier

__all__ = ["CLEARED", "FORMS", "LAYERS", "SCRATCH", "record", "record_latency"]

PACKAGES = ("paddlepaddle", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
SCRATCH = "mobilenet_v2-scratch"  # what the tables call the MobileNetV2 that began with random weights
LAYERS = (SCRATCH, "mobilenet_v2", "asymmnet_large")  # looked at one layer at a time
ROUNDS, TURN_S = 10, 0.5
CLEARED = "int8, one step a layer, still channels cleared"


class Form(NamedTuple):
    """A way to store and run a network: its files, the first of which is opened, and what opens it."""

    files: tuple[str, ...]
    open: Callable[[Path, int | None], Runner]


def _onnx(name):
    return Form((f"{name}.onnx",), lambda path, batch: run_onnx(path))


# what the table calls it: how it is run; the first is what the others are compared with
FORMS = {"float32": _onnx("model"), "float16": _onnx("model-float16"), "int8": _onnx("int8"),
         "OpenVINO float32": Form(("model.onnx",), run_openvino),
         "OpenVINO int8": Form(("openvino.xml", "openvino.bin"), run_openvino),
         "int8, one step a layer": _onnx("int8-layer"), CLEARED: _onnx("int8-cleared")}
TIMED = ("float32", "float16", "int8", "OpenVINO float32", "OpenVINO int8")


def record(prepared: "Prepared", scratch: Path | None = None) -> pd.DataFrame:
    """Write the rows of the released networks in results/int8.csv and results/int8-layers.csv; return the former.

    prepared: Caltech-16 with its test share. scratch: a folder with the two files of the MobileNetV2 that was released
    before; its rows are written instead. Rows of other networks stay as they are.

    Raises `ValueError` for other pictures, `RuntimeError` where a package of `ship` or `quantise` is missing.
    """
    rows, layers = [], []
    for name, classifier, folder in _networks(prepared, scratch):
        pictures = classifier.pictures(prepared, "test")
        rows += _rows(name, folder, pictures)
        if name in LAYERS:
            layers.append(layer_by_layer(folder / "model.onnx", pictures).assign(network=name))
    table = pd.DataFrame(rows).assign(calibration=CALIBRATION, **machine(PACKAGES))
    _replace(pd.concat(layers).assign(**machine(PACKAGES)), "int8-layers")
    _replace(table, "int8")
    return table


def _replace(rows, name):
    """Put the rows of networks where their earlier ones were."""
    replace_rows(rows, results_dir() / f"{name}.csv", lambda old: old["network"].isin(rows["network"]), ("network",))


def record_latency(prepared: "Prepared", rounds: int = ROUNDS, turn_s: float = TURN_S) -> pd.DataFrame:
    """Write results/int8-latency.csv: milliseconds of one picture by each file of each network, all in turns."""
    rows = []
    for name, classifier, folder in _networks(prepared, timed=True):
        picture = classifier.pictures(prepared, "test")[0][0][None]
        runs = {form: FORMS[form].open(folder / FORMS[form].files[0], 1) for form in TIMED}
        for form, turns in take_turns(runs, picture, rounds, turn_s).items():
            middle, low, high = spread(turns)
            rows.append({"network": name, "form": form, "image_size": classifier.image_size, "rounds": rounds,
                         "calls": sum(map(len, turns)), "ms": middle, "ms_low": low, "ms_high": high})
    table = pd.DataFrame(rows).assign(**machine(PACKAGES))
    write_table(table, results_dir() / "int8-latency.csv")
    return table


def _networks(prepared: "Prepared", scratch: Path | None = None,
              timed: bool = False) -> Iterator[tuple[str, "Classifier", Path]]:
    """(name, classifier, folder with the files of `FORMS`, of `TIMED` alone if timed) of each network."""
    networks = {SCRATCH: load_pretrained("mobilenet_v2", scratch)} if scratch else {
        name: load_pretrained(name) for name in RELEASED}
    for name, classifier in networks.items():
        images = calibration_pictures(classifier.pictures(prepared, "train"))
        with _files(classifier, images, timed) as folder:
            yield name, classifier, folder


@contextmanager
def _files(classifier, images, timed):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        export_classifier(classifier, folder)
        onnx_int8(folder / "model.onnx", folder / "int8.onnx", images)
        openvino_int8(folder / "model.onnx", folder / "openvino.xml", images)
        if not timed:
            onnx_int8(folder / "model.onnx", folder / "int8-layer.onnx", images, per_channel=False)
            _without_still_channels(classifier, folder, images)
        yield folder


def _without_still_channels(classifier, folder, images):
    """The file whose still channels are cleared first; none where the network has no such channel."""
    other = dataclasses.replace(classifier, network=copy.deepcopy(classifier.network))
    if clear_still_channels(other.network):
        export_classifier(other, folder / "other")
        onnx_int8(folder / "other" / "model.onnx", folder / "int8-cleared.onnx", images, per_channel=False)


def _rows(name, folder, pictures):
    """A row a form of one network."""
    here = {form: entry for form, entry in FORMS.items() if (folder / entry.files[0]).is_file()}
    right = {form: answers_of(entry.open(folder / entry.files[0], None), pictures).right
             for form, entry in here.items()}
    for form, entry in here.items():
        total, before = len(right[form]), right["float32"]
        low, high = wilson(right[form].mean(), total)
        lost, gained, p = compare(before, right[form])
        yield {"network": name, "form": form, "image_size": pictures.size,
               "bytes": sum((folder / file).stat().st_size for file in entry.files), "right": int(right[form].sum()),
               "pictures": total, "low": low, "high": high, "lost": lost, "gained": gained, "p": p}
