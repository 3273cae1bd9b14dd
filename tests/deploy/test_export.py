"""An exported network answers as the network does, its files say what they are, and nothing is fetched for it."""
import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import paddle
import pandas as pd
import pytest
from paddle import nn

from asymmbook.checkout import results_dir
from asymmlib.__main__ import main
from asymmlib.base import extras
from asymmlib.data.pictures import normalise
from asymmlib.deploy import engines, export, timing
from asymmlib.deploy.timing import typical_network
from asymmlib.models import MODELS
from asymmlib.weights.official import read_tensors
from asymmlib.weights.own import load_weights

SIZE = 64
METADATA = {"classes": ["façade", "b"], "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.25],
            "preprocessing": {"size": [SIZE, SIZE], "mean": [0.5, 0.4, 0.3], "dtype": "float32"}}
FILES = ("model", "model-float16", "model-uint8", "model-free-size")
SMALL = tuple(name for name in MODELS if name not in ("vgg19", "resnet50"))
pytestmark = pytest.mark.slow
needs_onnx = pytest.mark.skipif(bool(engines.missing("onnxruntime")), reason="the extra `ship` is not installed")


@pytest.fixture(scope="module")
def network():
    """AsymmNet-Small with logits up to about 5, so that a tolerance of 1e-4 means something."""
    network = typical_network("asymmnet_small")
    noise = np.random.default_rng(0).normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
    scale = 5 / np.abs(export.eager_logits(network, noise)).max()
    paddle.assign(scale * network.classifier.weight, network.classifier.weight)
    return network


@pytest.fixture(scope="module")
def before(network):
    """The network's tensors and its forward before its export."""
    return {name: value.numpy() for name, value in network.state_dict().items()}, network.forward


@pytest.fixture(scope="module")
def exported(network, before, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return folder, export.export(network, folder, SIZE, METADATA, uint8=True, free_size=True)


@pytest.fixture
def images():
    return np.random.default_rng(3).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


def test_every_file_is_there_and_every_engine_agrees(network, exported, images):
    folder, differences = exported
    expected = export.eager_logits(network, images)
    assert np.abs(expected).max() > 0.5
    able, _ = timing.available()
    assert set(differences) == {*able, *(FILES if "onnxruntime" in able else ()), "weights-float16"} - {"eager", "ours"}
    for name in able:
        limit = 1e-4 if engines.ENGINES[name].precision == "float32" else 0.1
        found = engines.load_engine(name, network, folder, len(images))(images)
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit * max(1, np.abs(expected).max()), err_msg=name)


@needs_onnx
def test_onnx_says_what_it_is(exported):
    import onnx
    model = onnx.load(exported[0] / "model.onnx")
    assert [(item.domain, item.version) for item in model.opset_import] == [("", export.OPSET)] and export.OPSET == 17
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["classes"]) == ["façade", "b"] and properties["image_size"] == str(SIZE)
    names = {initializer.name for initializer in model.graph.initializer}
    assert {"stem.conv.weight", "classifier.weight"} <= names, "parameters keep the names they have in Paddle"
    facts = json.loads((exported[0] / "export.json").read_text(encoding="utf-8"))
    assert facts["opset"] == 17 and facts["differences"] == exported[1] and facts["classes"] == ["façade", "b"]


@needs_onnx
@pytest.mark.parametrize("name", FILES)
def test_zeroed_weights_are_noticed(network, exported, tmp_path, name):
    """In each file: a network whose logits are all the bias answers, too, and quickly."""
    import onnx
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    model = onnx.load(tmp_path / f"{name}.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("classifier.weight"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(model, tmp_path / f"{name}.onnx")
    with pytest.raises(ValueError, match=rf"logits differ from the eager network's: .*\b{name} \("):
        export.check(network, tmp_path, SIZE, statistics=(METADATA["mean"], METADATA["std"]))


@needs_onnx
def test_small_logits_are_no_excuse(tmp_path):
    """Differences are relative to the largest logit, also where that is far below 1."""
    import onnx
    network = typical_network("asymmnet_small")
    for tensor in (network.classifier.weight, network.classifier.bias):
        paddle.assign(1e-3 * tensor, tensor)
    assert max(export.export(network, tmp_path, SIZE).values()) > 0
    model = onnx.load(tmp_path / "model-float16.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("classifier.weight"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(model, tmp_path / "model-float16.onnx")
    with pytest.raises(ValueError, match="model-float16"):
        export.check(network, tmp_path, SIZE)


@needs_onnx
def test_bytes_go_through_the_graph_as_through_numpy(network, exported):
    import onnxruntime
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    session = onnxruntime.InferenceSession(exported[0] / "model-uint8.onnx", providers=["CPUExecutionProvider"])
    source, = session.get_inputs()
    assert source.type == "tensor(uint8)" and source.shape == ["N", SIZE, SIZE, 3]
    found, = session.run(None, {source.name: pixels})
    expected = export.eager_logits(network, normalise(pixels, METADATA["mean"], METADATA["std"]))
    assert export.difference(found, expected) <= export.TOLERANCE
    about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert (about["dtype"], about["layout"], about["range"]) == ("uint8", "NHWC", [0, 255]) and "mean" not in about


@needs_onnx
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (96, 64), (33, 128)])
def test_any_height_and_width(network, exported, shape):
    import onnxruntime
    images = np.random.default_rng(2).normal(size=(2, 3, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(exported[0] / "model-free-size.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", 3, "height", "width"]
    found, = session.run(None, {"pictures": images})
    assert export.difference(found, export.eager_logits(network, images)) <= export.TOLERANCE


@needs_onnx
@pytest.mark.parametrize("name", SMALL)
def test_every_model_takes_any_size(name, tmp_path):
    from asymmlib.deploy.onnx_graph import make_onnx
    network = typical_network(name)
    (tmp_path / "model.onnx").write_bytes(make_onnx(network, None).SerializeToString())
    images = np.random.default_rng(2).normal(size=(2, 3, 64, 96)).astype(np.float32)
    found = engines.run_onnx(tmp_path / "model.onnx")(images)
    assert export.difference(found, export.eager_logits(network, images)) <= export.TOLERANCE


@needs_onnx
def test_without_a_runtime_the_files_are_run_all_the_same(network, exported, monkeypatch):
    """The package onnx brings an evaluator."""
    monkeypatch.setattr(extras, "find_spec", without("onnxruntime", "openvino"))
    found = export.check(network, exported[0], SIZE, statistics=(METADATA["mean"], METADATA["std"]), pictures=1)
    assert set(found) == {"paddle", "paddle-onednn", *FILES, "weights-float16"}


def test_nothing_of_an_earlier_export_stays(network, tmp_path):
    export.export(network, tmp_path, SIZE, METADATA, uint8=True)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "export.json").unlink()  # as if it had been interrupted
    export.export(network, tmp_path, SIZE)
    left = {path.name for path in tmp_path.iterdir()}
    assert "mine.txt" in left and not left & {"model-uint8.onnx", "reference.png"}
    facts = json.loads((tmp_path / "export.json").read_text())
    assert set(facts["files"]) == left - {"mine.txt", "export.json"}
    assert all(entry["bytes"] == (tmp_path / name).stat().st_size for name, entry in facts["files"].items())


def test_bytes_need_mean_and_std(network, tmp_path):
    with pytest.raises(ValueError, match="a file that takes bytes needs the mean"):
        export.export(network, tmp_path, SIZE, {"mean": [0.5] * 3}, uint8=True)


@needs_onnx
@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_takes_any_batch(network, exported, batch):
    images = np.random.default_rng(batch).normal(size=(batch, 3, SIZE, SIZE)).astype(np.float32)
    found = engines.load_engine("onnxruntime", network, exported[0])(images)
    np.testing.assert_allclose(found, export.eager_logits(network, images), atol=1e-4)


@needs_onnx
@pytest.mark.parametrize("name", SMALL)
def test_every_model_becomes_onnx(name, tmp_path, images):
    from asymmlib.deploy.onnx_graph import make_onnx
    network = typical_network(name)
    (tmp_path / "model.onnx").write_bytes(make_onnx(network, SIZE).SerializeToString())
    expected = export.eager_logits(network, images)
    found = engines.load_engine("onnxruntime", network, tmp_path)(images)
    assert export.difference(found, expected) <= export.TOLERANCE and np.ptp(expected, axis=0).max() > 1e-3


@needs_onnx
def test_asymmetry_and_width_survive(tmp_path, images):
    from asymmlib import create_model
    from asymmlib.deploy.onnx_graph import make_onnx
    network = create_model("asymmnet_large", 7, width=0.5, asymmrate=2)
    network.eval()
    (tmp_path / "model.onnx").write_bytes(make_onnx(network, SIZE).SerializeToString())
    found = engines.load_engine("onnxruntime", network, tmp_path)(images)
    assert found.shape == (3, 7) and export.difference(found, export.eager_logits(network, images)) <= export.TOLERANCE


@needs_onnx
def test_float16_halves_the_file_and_computes_with_rounded_weights(network, exported, images):
    import onnx
    import onnxruntime
    folder, _ = exported
    whole, half = ((folder / name).stat().st_size for name in ("model.onnx", "model-float16.onnx"))
    assert 0.49 < half / whole < 0.56
    assert (folder / "weights-float16.safetensors").stat().st_size < 1.05 * half
    rounded = typical_network("asymmnet_small")
    load_weights(rounded, folder / "weights-float16.safetensors")
    session = onnxruntime.InferenceSession(folder / "model-float16.onnx", providers=["CPUExecutionProvider"])
    found, = session.run(None, {"pictures": images})
    assert export.difference(found, export.eager_logits(rounded, images)) <= export.TOLERANCE
    stored = onnx.load(folder / "model-float16.onnx").graph.initializer
    kinds = {item.data_type for item in stored if len(item.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_float16_weights_keep_vectors_and_refuse_what_does_not_fit(tmp_path):
    layer = nn.Linear(2, 2)
    export.save_half(layer, tmp_path / "a.safetensors")
    tensors = read_tensors(tmp_path / "a.safetensors")
    assert tensors["weight"].dtype == np.float16 and tensors["bias"].dtype == np.float32
    paddle.assign(paddle.full([2, 2], 7e4), layer.weight)
    with pytest.raises(ValueError, match="weight has values beyond 65504"):
        export.save_half(layer, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_the_network_is_left_as_it_was(network, before, exported):
    tensors, forward = before
    assert network.forward == forward and "forward" not in vars(network)
    assert all(np.array_equal(value.numpy(), tensors[name]) for name, value in network.state_dict().items())


def test_a_wrong_file_is_noticed(network, exported, tmp_path):
    other = typical_network("asymmnet_small")  # the same network before its classifier was scaled
    with pytest.raises(ValueError, match=r"logits differ from the eager network's: paddle \("):
        export.check(other, exported[0], SIZE, statistics=(METADATA["mean"], METADATA["std"]))


class Odd(nn.Layer):
    """A network with an operator that the book's networks do not use."""

    def forward(self, x):
        return paddle.nn.functional.mish(x.mean([2, 3]))


@needs_onnx
def test_what_cannot_be_converted_is_named(network):
    from asymmlib.deploy.onnx_graph import make_onnx
    odd = Odd()
    odd.eval()
    with pytest.raises(ValueError, match=r"operator pd_op\.mean has no ONNX form here; known: add, "):
        make_onnx(odd, SIZE)
    network.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            make_onnx(network, SIZE)
    finally:
        network.eval()


@needs_onnx
def test_pooling_that_does_not_divide_is_refused():
    from asymmlib.deploy.onnx_graph import make_onnx
    pool = nn.Sequential(nn.AdaptiveAvgPool2D(7), nn.Flatten())
    pool.eval()
    with pytest.raises(ValueError, match=r"adaptive pooling from \[64, 64\] to \[7, 7\]"):
        make_onnx(pool, SIZE)
    make_onnx(pool, 63)


@pytest.mark.parametrize("size", [16, 64.0, "64", True])
def test_sizes_that_make_no_sense(network, tmp_path, size):
    with pytest.raises(ValueError, match="image_size is"):
        export.export(network, tmp_path, size)


@needs_onnx
def test_no_engine_calls_another_program_or_the_network(network, tmp_path, images, monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"called: {arguments}")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(export, "environment", dict)  # asks git for the commit, which is neither
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("os.system", refuse)
    export.export(network, tmp_path, SIZE)
    for name in timing.available()[0]:
        engines.load_engine(name, network, tmp_path, 3)(images)


def without(*packages):
    """A `find_spec` that does not know some packages."""
    find_spec = extras.find_spec
    return lambda name: None if name in packages else find_spec(name)


def test_missing_packages_are_named_with_their_extra(network, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", without("onnx", "openvino"))
    differences = export.export(network, tmp_path, SIZE)
    assert set(differences) == {"paddle", "paddle-onednn", "weights-float16"}
    assert "the package onnx is not installed; it is in the extra `ship`: pip install" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.onnx"))
    able, reasons = timing.available()
    assert [name for name in able if name != "ours"] == ["eager", "paddle", "paddle-onednn"]
    assert set(reasons) - {"ours"} == {"onnxruntime", "openvino", "openvino-bf16"}
    with pytest.raises(RuntimeError, match="engine 'openvino' cannot run: the package onnx is not installed"):
        engines.load_engine("openvino", network, tmp_path)


TWO_MODELS = """
import gc, signal, sys
from pathlib import Path
from asymmlib.deploy.engines import ENGINES, load_engine
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
names = [name for name in ("openvino", "openvino-bf16") if not ENGINES[name].obstacle()]
runs = [load_engine(name, None, Path(sys.argv[1])) for name in (*names, *names)]
while runs:
    runs.pop(0)
    gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


@needs_onnx
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_after_engines_that_are_gone_again(exported):
    """On CPUs with AMX it found a freed stack: a Ctrl-C in a notebook would end its kernel."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TWO_MODELS, exported[0]], capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@needs_onnx
def test_openvino_without_bfloat16(monkeypatch):
    _, before = timing.available()  # where there is no compiler, our kernels are missing too
    entry = engines.ENGINES["openvino-bf16"]._replace(obstacle=lambda: "this CPU has no instructions for bfloat16")
    monkeypatch.setitem(engines.ENGINES, "openvino-bf16", entry)
    able, reasons = timing.available()
    assert reasons == before | {"openvino-bf16": "this CPU has no instructions for bfloat16"} and "openvino" in able


def test_turns_alternate_and_percentiles_are_those_of_all_calls():
    calls = []
    runs = {name: lambda images, name=name: calls.append(name) for name in ("eager", "b")}
    seconds = timing.take_turns(runs, None, rounds=2, turn_s=0, rest_s=0)
    assert calls == ["eager"] * 3 + ["b"] * 6 + ["eager"] * 3, "one unmeasured call and two measured ones a turn"
    assert [len(turn) for turn in seconds["b"]] == [2, 2]
    table = timing.summarise({"eager": [[0.2] * 3, [0.4] * 3], "b": [[0.1] * 3, [0.1] * 3]}, batch=2)
    row = table.loc["b"]
    assert (row["p50_ms"], row["calls"], row["images_per_s"]) == (100, 6, 20)
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (2, 3, 4)
    assert table.loc["eager", "p90_ms"] == 400 and table.loc["eager", "ratio"] == 1


def test_bench_infer_writes_a_table_with_what_it_depends_on(tmp_path, capsys):
    path = tmp_path / "bench.csv"
    assert main(["bench-infer", "--model", "asymmnet_small", "--size", "32", "--batch", "1", "2", "--rounds", "1",
                 "--engines", "paddle-onednn", "--to", str(path)]) == 0
    table = pd.read_csv(path)
    assert list(table["engine"]) == ["eager", "paddle-onednn"] * 2 and list(table["batch"]) == [1, 1, 2, 2]
    assert (table[["p50_ms", "p90_ms", "p99_ms", "ratio"]] > 0).all(axis=None) and (table["difference"] < 1e-4).all()
    assert {"cpu", "threads", "versions", "python", "model", "image_size", "commit"} <= set(table)
    assert "paddlepaddle=" in table["versions"][0]


def test_a_table_keeps_the_rows_of_other_processors(tmp_path):
    path = tmp_path / "t.csv"
    first = pd.DataFrame({"engine": ["eager", "b"], "ratio": [1, 2.5], "versions": ["1.10", "a, b"], "cpu": "A"})
    timing.write(first, path)
    timing.write(first.assign(cpu="B"), path)
    before = path.read_text().splitlines()
    timing.write(first.assign(ratio=[1, 3.0], cpu="A"), path)
    assert path.read_text().splitlines() == [before[0], "eager,1,1.10,A", 'b,3,"a, b",A', *before[1:3]]
    path.write_text("no,table\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv is damaged or another table \(no column engine, cpu\)"):
        timing.write(first, path)
    assert path.read_text() == "no,table\n1,2\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (["bench-infer", "--engines", "tensorrt"], "unknown engine 'tensorrt'; known: eager"),
    (["bench-infer", "--batch", "0"], "batches has 0"),
    (["bench-infer", "--rounds", "0"], "rounds has 0"),
    (["bench-infer", "--size", "8"], "image_size is 8"),
    (["export", "nothing"], "nothing: no run, no released network"),
    (["export"], "say which network to export, with --from"),
])
def test_mistakes_end_in_one_line(home, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_export_of_a_run(home, picture_folder, capsys):
    main(["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--name", "first", "--epochs", "1",
          "--image-size", "32"])
    capsys.readouterr()
    assert main(["export", "first"]) == 0
    printed = capsys.readouterr().out
    assert "weights-float16.safetensors" in printed and "differs from the eager logits by" in printed
    facts = json.loads((home / "runs" / "first" / "export" / "export.json").read_text())
    assert facts["classes"] == ["blue", "green", "red"] and facts["image_size"] == 32 and facts["run"] == "first"
    trained = facts["training_data"]
    assert trained["name"].startswith(f"{picture_folder.name}-") and trained["train_pictures"] == 24
    assert str(picture_folder) not in json.dumps(facts), "no path of this machine leaves with the files"


def test_recorded_bench_says_where_it_ran():
    """The table in the repository, where there is one, is a whole one."""
    path = results_dir() / "bench_infer.csv"
    if not path.is_file():
        pytest.skip("no results/bench_infer.csv recorded")
    table = pd.read_csv(path)
    assert set(table["batch"]) >= {1, 32} and set(table["engine"]) <= set(engines.ENGINES)
    assert (table.loc[table["engine"] == "eager", "ratio"] == 1).all()
    float32 = [name for name, engine in engines.ENGINES.items() if engine.precision == "float32"]
    assert (table.loc[table["engine"].isin(float32), "difference"] <= export.TOLERANCE).all()
    assert table[["cpu", "threads", "versions", "python"]].notna().all(axis=None)
