"""The command line: `python -m asymmlib COMMAND --help` explains each command.

Every command is a thin layer over a function that notebooks call too. A user's mistake ends in one line on stderr and
exit status 2.
"""
import sys
from pathlib import Path

from asymmlib.base import interrupts
from asymmlib.base.commands import run_command
from asymmlib.recipes import RECIPES, get_recipe
from asymmlib.weights.released import RELEASED, available

__all__ = ["console", "main"]

DATA_HELP = ('"sample" (drawn by this project), "caltech16", "caltech101", or the path of a folder of class folders '
             "or of a zip or tar of one; default: ASYMMLIB_DATA, else sample")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    return run_command(COMMANDS, "asymmlib", "AsymmNet in PaddlePaddle: data, training, evaluation and prediction from "
                       "a shell.", arguments, PROMISES)


def console() -> None:
    """The script `asymmlib` that an installed package brings."""
    status = main()
    interrupts.ignore()
    sys.exit(status)


def _data_options(command):
    command.add_argument("--data", help=DATA_HELP)
    command.add_argument("--archive", help="with either Caltech: a local copy of caltech-101.zip instead of a download")
    command.add_argument("--test-share", action="store_true", help="keep another fifth of every class for a test split")
    command.add_argument("--on-error", choices=("error", "skip"), default="error",
                         help="unreadable pictures: stop and list them, or leave them out and list them")
    command.add_argument("--names-encoding", metavar="ENCODING",
                         help="of the names in an archive that do not say it: gb18030, cp932, cp850, big5 ...")


def _prepare(options):
    """Fetch or draw the pictures, check every one, and write the manifest of the split."""
    from asymmlib.data.manifest import counts
    from asymmlib.data.sources import prepare
    prepared = prepare(options.data, archive=options.archive, test_share=options.test_share,
                       on_error=options.on_error, names_encoding=options.names_encoding)
    table = counts(prepared.manifest)
    print(table.to_string())
    totals = ", ".join(f"{total} {split}" for split, total in table.sum().items() if split != "total")
    print(f"{prepared.name}: {len(prepared.manifest)} pictures in {len(prepared.class_names)} classes: {totals}")
    return prepared


def _models_options(command):
    command.add_argument("--classes", type=int, default=16, help="number of classes (default 16)")
    command.add_argument("--size", type=int, default=224, help="height and width in pixels (default 224)")


def _models(options):
    """List the models with their trainable parameters and multiply-accumulate operations (MACs)."""
    from asymmlib.models import compare_models
    table = compare_models(num_classes=options.classes, image_size=options.size)
    print(table.to_string(index=False, formatters={"params": "{:,}".format, "macs": "{:,}".format}))


def _train_options(command):
    _data_options(command)
    command.add_argument("--model", default="asymmnet_large", help="a name from `models` (default asymmnet_large)")
    command.add_argument("--recipe", help=f"one of {', '.join(RECIPES)}; default: ASYMMLIB_RECIPE, else quick")
    command.add_argument("--width", type=float, help="AsymmNet's width multiplier (default 1.0)")
    command.add_argument("--asymmrate", type=int, help="AsymmNet's asymmetry rate (default 1)")
    for name in ("epochs", "warmup-epochs", "seed", "batch-size", "image-size", "base-lr"):
        command.add_argument(f"--{name}", type=float if name == "base-lr" else int, help="instead of the recipe's")
    command.add_argument("--amp", action="store_true", default=None, help="mixed precision, on a GPU")
    command.add_argument("--name", help="folder below runs/ (default: made of model, recipe, data and seed)")
    command.add_argument("--start", metavar="WEIGHTS", help="weights to start from: ours, or what `convert` reads")
    command.add_argument("--new-head", action="store_true", help="with --start: a new classifier, for other classes")
    command.add_argument("--fresh", action="store_true", help="start over, even where the run exists")


def _train(options):
    """Train a model by a recipe; an interrupted run goes on, a finished one is only reported.

    Results go to runs/<name>/: run.json, history.csv, best.safetensors, last.safetensors. Started by
    python -m paddle.distributed.launch, several processes share one run; the batch size counts their pictures together.
    """
    from asymmlib.base import parallel
    from asymmlib.data.sources import prepare
    from asymmlib.records.opening import run_folder
    from asymmlib.training import train
    if options.name is not None:
        run_folder(options.name)  # a wrong name ends here, before pictures are prepared
    changed = {field: getattr(options, field) for field in
               ("epochs", "warmup_epochs", "seed", "batch_size", "image_size", "base_lr", "amp")
               if getattr(options, field) is not None}
    recipe = get_recipe(options.recipe).replace(**changed)
    with parallel.in_turn(parallel.local_rank()):
        prepared = prepare(options.data or recipe.data, archive=options.archive, on_error=options.on_error,
                           test_share=options.test_share or recipe.test_share, names_encoding=options.names_encoding)
    run = train(options.model, recipe, width=options.width, asymmrate=options.asymmrate, prepared=prepared,
                name=options.name, fresh=options.fresh, start=options.start, new_head=options.new_head)
    result = run.info["result"]
    print(f"{run.folder}: eval top-1 {result['last_eval_top1']:.1%} after the last epoch, best "
          f"{result['best_eval_top1']:.1%} in epoch {result['best_epoch']}")


def _evaluate_options(command):
    _data_options(command)
    command.add_argument("folder", metavar="RUN", help="name below runs/, or path, of a finished run")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="which epoch (default last)")
    command.add_argument("--split", default="eval", help="train, eval or test (default eval)")


def _evaluate(options):
    """Measure a finished run on one split: mean loss and top-1 over every picture."""
    from asymmlib.data.sources import prepare
    from asymmlib.runs import find_run
    run = find_run(options.folder)
    prepared = prepare(options.data, archive=options.archive, on_error=options.on_error,
                       test_share=options.test_share or options.split == "test",
                       names_encoding=options.names_encoding)
    result = run.classifier(options.weights).evaluate(prepared, options.split)
    print(f"{run.name} ({options.weights}) on {len(result.labels)} {options.split} pictures of {prepared.name}: "
          f"loss {result.loss:.4f}, top-1 {result.top1:.2%}")


def _predict_options(command):
    command.add_argument("pictures", metavar="IMAGE", nargs="+", help="picture files, or folders of them")
    command.add_argument("--model", choices=RELEASED,
                         help="which of the weights that come with the book (default: the first that is here)")
    command.add_argument("--run", metavar="RUN", dest="folder",
                         help="instead: name below runs/, or path, of a finished run of your own")
    command.add_argument("--weights", choices=("last", "best"), default="best",
                         help="with --run: which epoch (default best)")
    command.add_argument("--top", type=int, default=5, help="how many classes to print (default 5)")


def _predict(options):
    """Print the most probable classes of picture files, by the weights that come with the book or by your own run.

    The book's weights know sixteen classes of Caltech-101 and nothing else: see weights/README.md.
    """
    from asymmlib.data.layout import picture_files
    from asymmlib.runs import BATCH, find_run, load_pretrained
    paths = picture_files(options.pictures)
    classifier = (find_run(options.folder).classifier(options.weights) if options.folder
                  else load_pretrained(options.model or _first_released()))
    failed = 0
    for start in range(0, len(paths), BATCH):
        failed += _answer(classifier, paths[start:start + BATCH], options.top, alone=len(paths) == 1)
    if failed:
        raise ValueError(f"{failed} of {len(paths)} files cannot be read as pictures; the others are answered above")


def _answer(classifier, paths, top, alone=False):
    """Print the answers for some pictures; those that cannot be read are named. Returns how many those are."""
    try:
        rows = classifier.predict(paths)
    except (ValueError, OSError) as error:
        if len(paths) > 1:  # so that one bad file does not hide the good ones
            return sum(_answer(classifier, [path], top) for path in paths)
        if alone:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, probabilities in zip(paths, rows, strict=True):
        print(path)
        for index in probabilities.argsort()[::-1][:top]:
            print(f"  {probabilities[index]:6.1%}  {classifier.classes[index]}")
    sys.stdout.flush()  # lines come as they are found
    return 0


def _first_released():
    """The first of the released networks whose weights are here; says so where the first of all is not."""
    best, here = next(iter(RELEASED)), available()
    if here and here[0] != best:
        print(f"{here[0]} answers: the weights of {best} are not here (a checkout has them; ASYMMLIB_WEIGHTS names "
              "their folder)", file=sys.stderr)
    return (here or [best])[0]


def _convert_options(command):
    command.add_argument("source", metavar="IN", help="weights of PyTorch, Gluon, Paddle or NumPy, of any name")
    command.add_argument("target", metavar="OUT", help="the file to write: .safetensors; with --to official also .npz")
    command.add_argument("--to", choices=("ours", "official"), default="ours",
                         help="the authors' weights to ours, or ours to the names of their PyTorch code (default ours)")
    command.add_argument("--key", help="which network of a checkpoint that has several, such as model_ema")
    command.add_argument("--port", help="pytorch or gluon, in place of the one that the names in the file tell")
    command.add_argument("--variant", help="large or small; like the next two only to check: the shapes tell it")
    command.add_argument("--width", type=float, help="width multiplier")
    command.add_argument("--asymmrate", type=int, help="asymmetry rate")
    command.add_argument("--new-head", action="store_true", help="draw a new classifier, for --classes other classes")
    command.add_argument("--classes", type=int, help="number of classes (default: as many as the file has)")


def _convert(options):
    """Turn the authors' weights into ours, or ours into theirs; no code in a file is run.

    State dicts, training checkpoints and whole modules of any PyTorch are read, Gluon's .params, .pdparams, .npz and
    safetensors; the bytes tell which.

    A checkpoint of 1000 classes starts a network of 16: convert IN OUT.safetensors --new-head --classes 16, then
    train --start OUT.safetensors.
    """
    from asymmlib.weights.convert import convert
    from asymmlib.weights.settings import shown
    network = convert(options.source, options.target, options.to, options.variant, options.width, options.asymmrate,
                      options.classes, options.new_head, options.key, options.port)
    print(f"{options.target}: {shown(vars(network))}, {network.classifier.weight.shape[1]} classes"
          + (", the classifier drawn anew" if options.new_head else ""))


def _export_options(command):
    command.add_argument("folder", metavar="RUN", help="name below runs/, or path, of a finished run")
    command.add_argument("--weights", choices=("last", "best"), default="last", help="which epoch (default last)")
    command.add_argument("--to", metavar="FOLDER", help="where to write (default: export/ in the run's folder)")


def _export(options):
    """Write a finished run as a Paddle Inference model, as ONNX and as float16 weights, and check each.

    Each file is run on random pictures and compared with the network as it is; the differences are printed and stored
    in export.json. ONNX needs the extra `ship`.
    """
    from asymmlib.deploy.export import export_classifier
    from asymmlib.runs import find_run
    run = find_run(options.folder)
    folder = Path(options.to) if options.to else run.folder / "export"
    differences = export_classifier(run.classifier(options.weights), folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    for name, value in differences.items():
        print(f"{name:16} differs from the eager logits by {value:.1e}")


def _bench_infer_options(command):
    command.add_argument("--model", default="asymmnet_large", help="a name from `models` (default asymmnet_large)")
    command.add_argument("--size", type=int, default=224, help="height and width in pixels (default 224)")
    command.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="batch sizes (default 1 32)")
    command.add_argument("--rounds", type=int, default=10, help="turns of every engine (default 10)")
    command.add_argument("--engines", nargs="+", metavar="ENGINE", help="default: all that are installed")
    command.add_argument("--to", metavar="FILE", help="also write the table there, as CSV")


def _bench_infer(options):
    """Time one network under every inference engine, in turns, against Paddle's eager mode.

    Prints a table with latency percentiles, ratios, versions, CPU and threads. Engines that are not installed are named
    with the command that brings them; nothing is fetched.
    """
    from asymmlib.deploy import timing
    if not options.engines:
        for name, reason in timing.available()[1].items():
            print(f"left out: {name}: {reason}")
    table = timing.measure(options.model, options.size, options.batch, options.rounds, names=options.engines)
    columns = ["engine", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "ratio", "ratio_low", "ratio_high",
               "difference"]
    print(table[columns].to_string(index=False, float_format="{:.3g}".format))
    if options.to:
        print(timing.write(table, options.to))


# command: (its options, what it does)
COMMANDS = {
    "prepare": (_data_options, _prepare),
    "models": (_models_options, _models),
    "train": (_train_options, _train),
    "evaluate": (_evaluate_options, _evaluate),
    "predict": (_predict_options, _predict),
    "convert": (_convert_options, _convert),
    "export": (_export_options, _export),
    "bench-infer": (_bench_infer_options, _bench_infer),
}

# What is true when a signal ends a command; `train` says more once it has opened the run
PROMISES = {
    "prepare": "the same command again prepares the pictures: a download goes on, what was unpacked stays",
    "train": "no run was changed; the same command trains",
}

if __name__ == "__main__":
    console()
