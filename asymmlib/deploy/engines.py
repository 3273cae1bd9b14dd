"""Ways to run an exported network on a CPU, all as one kind of function: float32 `[N, 3, H, W]` -> logits `[N, C]`.

`ENGINES` names them. Those beside Paddle are packages of the extra `ship`; one that is missing is named, with the
command that brings it, and never fetched. No engine here uses the network or another program.
"""
import copy
import functools
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from asymmlib.base.extras import load_package, missing_package

if TYPE_CHECKING:
    import paddle

__all__ = ["ENGINES", "Engine", "Runner", "load_engine", "missing", "openvino_core", "run_onnx",
           "run_openvino", "threads"]

Runner = Callable[[np.ndarray], np.ndarray]  # float32 [N, 3, H, W] -> logits [N, C]


def threads() -> int:
    """How many threads every engine gets: `OMP_NUM_THREADS`, else one per core."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _eager(network, export, batch):
    import paddle
    network.eval()

    def run(pictures):
        with paddle.no_grad():
            return network(paddle.to_tensor(pictures)).numpy()
    return run


def _ours(network, export, batch):
    from asymmlib.fast import accelerate
    from asymmlib.fast.folding import fold
    own = copy.deepcopy(network)  # Paddle's own kernels stay under the one that was given
    own.eval()
    return _eager(accelerate(fold(own)), export, batch)


def _no_kernels():
    """Why our kernels cannot be had here, or an empty text."""
    from asymmlib.fast.kernels import library
    return "" if library() is not None else "the kernels of asymmlib.fast cannot be had on this machine"


def _paddle_inference(onednn):
    def load(network, export, batch):
        from paddle import inference
        programs = (export / "inference.json", export / "inference.pdmodel")  # Paddle 2 writes the second
        program = next(filter(Path.is_file, programs), programs[0])
        config = inference.Config(str(program), str(export / "inference.pdiparams"))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads())
        if onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        predictor = inference.create_predictor(config)
        source = predictor.get_input_handle(predictor.get_input_names()[0])
        target = predictor.get_output_handle(predictor.get_output_names()[0])

        def run(pictures):
            source.copy_from_cpu(pictures)
            predictor.run()
            return target.copy_to_cpu()
        return run
    return load


def _onnx_runtime(network, export, batch):
    return _session(str(export / "model.onnx"))


def _session(model):
    runtime = load_package("onnxruntime")
    runtime.disable_telemetry_events()  # Microsoft's builds for Windows would report
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pictures: session.run(None, {name: pictures})[0]


def run_onnx(source: Path | bytes) -> Runner:
    """A function pictures -> logits for any ONNX file, or for the bytes of one.

    By ONNX Runtime, or by what the package `onnx` brings itself.

    The latter is slow and enough for a check. Raises `RuntimeError` where neither is here.
    """
    model = source if isinstance(source, bytes) else str(source)
    if not missing("onnxruntime"):
        return _session(model)
    load_package("onnx")
    evaluator = import_module("onnx.reference").ReferenceEvaluator(model)
    return lambda pictures: evaluator.run(None, {evaluator.input_names[0]: pictures})[0]


@functools.cache
def openvino_core() -> Any:
    """One for the process, kept: on CPUs with AMX each Core sets a stack for signal handlers and puts the one before
    back at its end, so that of two whose lives overlap a freed stack is left, and the next signal ends Python."""
    return load_package("openvino").Core()


def _openvino(precision):
    return lambda network, export, batch: run_openvino(export / "model.onnx", batch, precision)


def run_openvino(path: Path, batch: int | None = None, precision: str = "f32") -> Runner:
    """A function pictures -> logits for an ONNX file, or OpenVINO's own .xml; batch: None leaves it open.

    precision: of what is not quantised, said aloud: on CPUs with bf16 units OpenVINO would take bf16 by itself.
    """
    core = openvino_core()
    model = core.read_model(str(path))
    _, channels, height, width = model.inputs[0].partial_shape
    model.reshape([-1 if batch is None else batch, channels, height, width])
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads(),
                "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda pictures: np.array(request.infer([pictures], share_inputs=True)[0])


def _no_bf16():
    """Why OpenVINO cannot compute in bfloat16 on this CPU, or an empty text."""
    able = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "" if able else "this CPU has no instructions for bfloat16"


class Engine(NamedTuple):
    """What figures call it, arithmetic, the packages it needs, how to load it, what else may stand in its way, and
    whether it reads exported files or is the network itself."""

    label: str
    precision: str
    packages: tuple[str, ...]
    load: Callable[[Any, Any, int], Runner]
    obstacle: Callable[[], str] = lambda: ""
    exported: bool = True


ENGINES = {
    "eager": Engine("Paddle eager", "float32", (), _eager, exported=False),
    "ours": Engine("Paddle eager, our kernels", "float32", (), _ours, _no_kernels, exported=False),
    "paddle": Engine("Paddle Inference", "float32", (), _paddle_inference(onednn=False)),
    "paddle-onednn": Engine("Paddle Inference, oneDNN", "float32", (), _paddle_inference(onednn=True)),
    "onnxruntime": Engine("ONNX Runtime", "float32", ("onnx", "onnxruntime"), _onnx_runtime),
    "openvino": Engine("OpenVINO", "float32", ("onnx", "openvino"), _openvino("f32")),
    "openvino-bf16": Engine("OpenVINO, bfloat16", "bfloat16", ("onnx", "openvino"), _openvino("bf16"), _no_bf16),
}


def missing(name: str) -> str:
    """Why an engine cannot run here, in one sentence, or an empty text where it can. `ValueError`: unknown engine."""
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    engine = ENGINES[name]
    reasons = [reason for reason in map(missing_package, engine.packages) if reason]
    return reasons[0] if reasons else engine.obstacle()


def load_engine(name: str, network: "paddle.nn.Layer", export: Path | None, batch: int = 1) -> Runner:
    """A function float32 `[batch, 3, H, W]` -> logits `[batch, C]` for a network and its export folder (`Path`).

    Raises `ValueError` for an unknown engine and `RuntimeError` for one that cannot run here, saying why.
    """
    reason = missing(name)
    if reason:
        raise RuntimeError(f"engine {name!r} cannot run: {reason}")
    return ENGINES[name].load(network, export, batch)
