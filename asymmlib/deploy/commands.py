"""The commands that use a trained network: options and work of `predict`, `export` and `bench-infer`."""
import contextlib
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from asymmlib.base.commands import Once, count
from asymmlib.base.files import atomic_write
from asymmlib.data.commands import data_options, prepared_pictures

__all__ = ["bench_infer", "bench_infer_options", "export", "export_options", "network_options", "predict",
           "predict_options"]

NETWORK = ("a run of yours (its name below runs/, or its path), a network that comes with the book (asymmnet_large, "
           "asymmnet_small, mobilenet_v2), or a file of weights: .safetensors of ours, or what `convert` reads")


def network_options(command: ArgumentParser, *names: str, positional: bool = False) -> None:
    """Add `--from`, with other names that it has on this command, and `--weights`; positional: also without `--from`.
    """
    if positional:
        command.add_argument("network", metavar="NETWORK", nargs="?", action=Once, help=f"{NETWORK}; or: --from")
    command.add_argument("--from", *names, dest="network", metavar="NETWORK", action=Once, help=NETWORK)
    command.add_argument("--weights", choices=("last", "best"), help="of a run: which epoch (default last)")


def predict_options(command: ArgumentParser) -> None:
    """The options of `predict`."""
    command.add_argument("pictures", metavar="IMAGE", nargs="+",
                         help='picture files, folders (with all below), patterns such as "*.jpg", or - for a list of '
                              "paths on standard input")
    network_options(command, "--run", "--model")
    command.add_argument("--head", metavar="FILE", action=Once,
                         help="a head for other classes, saved by the book's live page for this network")
    command.add_argument("--top", type=count, default=5, help="how many classes to say (default 5)")
    forms = command.add_mutually_exclusive_group()
    for form, text in (("json", "one JSON object a line"), ("csv", "a table")):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=text)
    command.add_argument("--output", metavar="FILE",
                         help="write there, in the form that the name's end tells: .txt, .json, .jsonl, .csv")


def predict(options: Namespace) -> None:
    """Say the most probable classes of pictures, by the weights that come with the book or by your own.

    The book's weights know sixteen classes of Caltech-101 and nothing else: see weights/README.md. Files that cannot be
    read are named, the others are answered, and the exit status is then 2.
    """
    from tqdm import tqdm

    from asymmlib.deploy.answers import answers, find_pictures, form_of, write_answers
    from asymmlib.records.classifiers import open_classifier
    form = form_of(options.output, options.form)
    classifier = open_classifier(options.network, options.weights)
    if options.head:
        from asymmlib.deploy.heads import with_head
        classifier = with_head(classifier, options.head)
    paths, top = find_pictures(options.pictures, sys.stdin.buffer), min(options.top, len(classifier.classes))
    quiet = not sys.stderr.isatty() or (not options.output and sys.stdout.isatty())  # the answers tell how far it is
    errors = []
    with (atomic_write(options.output, "w") if options.output else contextlib.nullcontext(sys.stdout)) as file, \
            tqdm(total=len(paths), unit="picture", disable=quiet, leave=False) as bar:
        for answer in write_answers(answers(classifier, paths, top, bar.update), file, form, top):
            if answer.error:
                errors.append(answer.error)
                if len(paths) > 1:
                    print(f"error: {answer.error}", file=sys.stderr, flush=True)
            elif not options.output:
                file.flush()  # lines come as they are found
    if options.output:
        print(f"{options.output}: {len(paths) - len(errors)} pictures answered")
    if errors:
        raise ValueError(errors[0] if len(paths) == 1 else f"{len(errors)} of {len(paths)} files cannot be read as "
                         "pictures; the others are answered")


def export_options(command: ArgumentParser) -> None:
    """The options of `export`."""
    network_options(command, positional=True)
    command.add_argument("--to", metavar="FOLDER", help="where to write (a run's default: export/ in its folder)")
    command.add_argument("--uint8", action="store_true",
                         help="also model-uint8.onnx, which takes bytes [N, H, W, 3] and normalises by itself")
    command.add_argument("--free-size", action="store_true",
                         help="also model-free-size.onnx, which takes pictures of any height and width")
    command.add_argument("--int8", action="store_true",
                         help="also model-int8.onnx: integers of 8 bits, a quarter of the bytes; needs train pictures")
    command.add_argument("--openvino-int8", action="store_true",
                         help="also model-int8.xml and .bin, the same for OpenVINO, by NNCF (the extra `quantise`)")
    command.add_argument("--calibration", type=count, metavar="N",
                         help="with int8: how many train pictures show how large values get (default 256)")
    command.add_argument("--largest-loss", type=float, metavar="POINTS",
                         help="with int8: what it may lose of the accuracy on eval pictures, else no file (default 3)")
    data_options(command, "with int8, those that the network was trained on")


def export(options: Namespace) -> None:
    """Write a trained network as a Paddle Inference model, as ONNX and as float16 weights, and check each.

    Each file is run on random pictures and compared with the network as it is; the differences are printed and stored
    in export.json, which also says how a picture is prepared. reference.png is a drawn picture whose logits stand in
    export.json and in the ONNX files. ONNX needs the extra `ship`.

    With --int8 or --openvino-int8 pictures are needed: train pictures for calibration, eval pictures (and test ones,
    where they were kept apart) for the accuracy of each file, which is printed beside that of float32.
    """
    from asymmlib.deploy.export import export_classifier
    from asymmlib.records.classifiers import open_classifier
    if options.network is None:
        raise ValueError(f"say which network to export, with --from: {NETWORK}")
    forms = [name for name in ("int8", "openvino-int8") if getattr(options, name.replace("-", "_"))]
    _refuse_idle(options, forms)
    classifier = open_classifier(options.network, options.weights)
    folder = _export_folder(options.to, classifier)
    prepared = _training_pictures(options, classifier, forms) if forms else None
    differences = export_classifier(classifier, folder, options.uint8, options.free_size)
    if prepared is not None:
        from asymmlib.deploy.quantise import LARGEST_LOSS, quantise, readable
        from asymmlib.deploy.quantisers import CALIBRATION
        table = quantise(classifier, folder, prepared, forms, options.calibration or CALIBRATION,
                         LARGEST_LOSS if options.largest_loss is None else options.largest_loss)
        print(readable(table).to_string())
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    for name, value in differences.items():
        print(f"{name:16} differs from the eager logits by {value:.1e}")


def _refuse_idle(options, forms):
    """Raise `ValueError` for options that only int8 uses, without it."""
    idle = [name for name in ("calibration", "largest-loss", "data", "archive", "test-share", "names-encoding")
            if (value := getattr(options, name.replace("-", "_"))) is not None and value is not False]
    if idle and not forms:
        raise ValueError(f"--{idle[0]} is for int8: add --int8 or --openvino-int8, or leave it away")


def _training_pictures(options, classifier, forms):
    """The pictures that int8 is calibrated and measured with; found before anything is written."""
    from asymmlib.deploy.quantise import require
    recipe, manifest = classifier.provenance.get("recipe", {}), (classifier.record or {}).get("manifest")
    if not options.data and not recipe.get("data"):
        raise ValueError(f"{classifier.name} does not say which pictures it was trained on, and int8 is calibrated on "
                         "train pictures: name them with --data")
    require(forms)
    apart = recipe.get("test_share", False) or (manifest is not None and "test" in set(manifest["split"]))
    prepared = prepared_pictures(options, recipe.get("data"), apart)
    classifier.pictures(prepared, "train")  # other classes, or no such split, are told now
    return prepared


def _export_folder(given, classifier):
    if given:
        return Path(given)
    if classifier.folder is None:
        raise ValueError(f"{classifier.name} is no run with a folder of its own: say where to write, with --to FOLDER")
    return classifier.folder / "export"


def bench_infer_options(command: ArgumentParser) -> None:
    """The options of `bench-infer`."""
    network = command.add_mutually_exclusive_group()
    network.add_argument("--model", default="asymmnet_large",
                         help="a name from `models`, with random weights (default asymmnet_large)")
    network.add_argument("--from", dest="network", metavar="NETWORK", help=f"instead: {NETWORK}")
    command.add_argument("--weights", choices=("last", "best"), help="of a run: which epoch (default last)")
    command.add_argument("--size", type=count, help="height and width in pixels (default: the network's, else 224)")
    command.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="batch sizes (default 1 32)")
    command.add_argument("--rounds", type=int, default=10, help="turns of every engine (default 10)")
    command.add_argument("--engines", nargs="+", metavar="ENGINE", help="default: all that are installed")
    command.add_argument("--to", metavar="FILE", help="also write the table there, as CSV")


def bench_infer(options: Namespace) -> None:
    """Time one network under every inference engine, in turns, against Paddle's eager mode.

    Prints a table with latency percentiles, ratios, versions, CPU and threads. Engines that are not installed are named
    with the command that brings them; nothing is fetched.
    """
    from asymmlib.deploy import timing
    from asymmlib.records.classifiers import open_classifier
    if options.weights and not options.network:
        raise ValueError("--weights chooses an epoch of a run: name the run with --from")
    classifier = open_classifier(options.network, options.weights) if options.network else None
    if not options.engines:
        for name, reason in timing.available()[1].items():
            print(f"left out: {name}: {reason}")
    size = options.size or (classifier.image_size if classifier else 224)
    table = timing.measure(classifier.name if classifier else options.model, size, options.batch, options.rounds,
                           names=options.engines, network=classifier.network if classifier else None)
    columns = ["engine", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "ratio", "ratio_low", "ratio_high",
               "difference"]
    print(table[columns].to_string(index=False, float_format="{:.3g}".format))
    if options.to:
        print(timing.write(table, options.to))
