"""The command line: `python -m asymmlib COMMAND --help` explains each command.

Every command is a thin layer over a function that notebooks call too. A user's mistake ends in one line on stderr and
exit status 2.
"""
import sys

from asymmlib.base import interrupts
from asymmlib.base.commands import run_command
from asymmlib.data.commands import data_options, prepared_pictures
from asymmlib.deploy.commands import (
    NETWORK,
    bench_infer,
    bench_infer_options,
    export,
    export_options,
    network_options,
    predict,
    predict_options,
)
from asymmlib.recipes import RECIPES, get_recipe

__all__ = ["console", "main"]

def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    return run_command(COMMANDS, "asymmlib", "AsymmNet in PaddlePaddle: data, training, evaluation and prediction from "
                       "a shell.", arguments, PROMISES)


def console() -> None:
    """The script `asymmlib` that an installed package brings."""
    status = main()
    interrupts.ignore()
    sys.exit(status)


def _prepare(options):
    """Fetch or draw the pictures, check every one, and write the manifest of the split."""
    from asymmlib.data.manifest import counts
    prepared = prepared_pictures(options)
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
    data_options(command)
    command.add_argument("--model", default="asymmnet_large", help="a name from `models` (default asymmnet_large)")
    command.add_argument("--recipe", help=f"one of {', '.join(RECIPES)}; default: ASYMMLIB_RECIPE, else quick")
    command.add_argument("--width", type=float, help="AsymmNet's width multiplier (default 1.0)")
    command.add_argument("--asymmrate", type=int, help="AsymmNet's asymmetry rate (default 1)")
    for name in ("epochs", "warmup-epochs", "seed", "batch-size", "image-size"):
        command.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    command.add_argument("--base-lr", type=float, help="instead of the recipe's")
    command.add_argument("--amp", action="store_true", default=None, help="mixed precision, on a GPU")
    command.add_argument("--name", help="folder below runs/ (default: made of model, recipe, data and seed)")
    command.add_argument("--start", metavar="WEIGHTS", help="weights to start from: a run, a released network, or a "
                         "file (ours, or what `convert` reads)")
    command.add_argument("--new-head", action="store_true", help="with --start: a new classifier, for other classes")
    command.add_argument("--frozen-epochs", type=int, metavar="N",
                         help="with --start: train the classifier alone for N epochs, then all layers (default 0)")
    command.add_argument("--backbone-rate", type=float, metavar="SHARE",
                         help="learning rate of all but the classifier, as a share of its rate (default 1)")
    command.add_argument("--fresh", action="store_true", help="start over, even where the run exists")


def _train(options):
    """Train a model by a recipe; an interrupted run goes on, a finished one is only reported.

    Results go to runs/<name>/: run.json, history.csv, best.safetensors, last.safetensors. Started by
    python -m paddle.distributed.launch, several processes share one run; the batch size counts their pictures together.
    """
    from asymmlib.base import parallel
    from asymmlib.records.opening import run_folder
    from asymmlib.training import train
    if options.name is not None:
        run_folder(options.name)  # a wrong name ends here, before pictures are prepared
    changed = {field: getattr(options, field) for field in
               ("epochs", "warmup_epochs", "seed", "batch_size", "image_size", "base_lr", "amp",
                "frozen_epochs", "backbone_rate")
               if getattr(options, field) is not None}
    recipe = get_recipe(options.recipe).replace(**changed)
    with parallel.in_turn(parallel.local_rank()):
        prepared = prepared_pictures(options, recipe.data, recipe.test_share)
    run = train(options.model, recipe, width=options.width, asymmrate=options.asymmrate, prepared=prepared,
                name=options.name, fresh=options.fresh, start=options.start, new_head=options.new_head)
    result = run.info["result"]
    print(f"{run.folder}: eval top-1 {result['last_eval_top1']:.1%} after the last epoch, best "
          f"{result['best_eval_top1']:.1%} in epoch {result['best_epoch']}")


def _evaluate_options(command):
    data_options(command)
    network_options(command, positional=True)
    command.add_argument("--split", default="eval", help="train, eval or test (default eval)")


def _evaluate(options):
    """Measure a network on one split: mean loss and top-1 over every picture."""
    from asymmlib.records.classifiers import open_classifier
    if options.network is None:
        raise ValueError(f"say which network to measure, with --from: {NETWORK}")
    classifier = open_classifier(options.network, options.weights)
    prepared = prepared_pictures(options, test_share=options.split == "test")
    result = classifier.evaluate(prepared, options.split)
    epoch = f" ({classifier.provenance['weights']})" if "weights" in classifier.provenance else ""
    print(f"{classifier.name}{epoch} on {len(result.labels)} {options.split} pictures of {prepared.name}: "
          f"loss {result.loss:.4f}, top-1 {result.top1:.2%}")


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
    command.add_argument("--labels", metavar="FILE", help="the classes' names, one a line, to be written into OUT")
    command.add_argument("--size", type=int, help="of the pictures in pixels, to be written into OUT")
    for name in ("mean", "std"):
        command.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"),
                             help="of the pictures on the scale 0 to 1, to be written into OUT")


def _convert(options):
    """Turn the authors' weights into ours, or ours into theirs; no code in a file is run.

    State dicts, training checkpoints and whole modules of any PyTorch are read, Gluon's .params, .pdparams, .npz and
    safetensors; the bytes tell which.

    A checkpoint of 1000 classes starts a network of 16: convert IN OUT.safetensors --new-head --classes 16, then
    train --start OUT.safetensors. What is written with --labels, --size, --mean and --std makes a file that `predict`
    can use: predict --from OUT.safetensors.
    """
    from asymmlib.weights.convert import convert, read_labels
    from asymmlib.weights.settings import shown
    pictures = {"classes": read_labels(options.labels) if options.labels else None, "size": options.size,
                "mean": options.mean, "std": options.std}
    network = convert(options.source, options.target, options.to, options.variant, options.width, options.asymmrate,
                      options.classes, options.new_head, options.key, options.port, pictures)
    print(f"{options.target}: {shown(vars(network))}, {network.classifier.weight.shape[1]} classes"
          + (", the classifier drawn anew" if options.new_head else ""))


# command: (its options, what it does)
COMMANDS = {
    "prepare": (data_options, _prepare),
    "models": (_models_options, _models),
    "train": (_train_options, _train),
    "evaluate": (_evaluate_options, _evaluate),
    "predict": (predict_options, predict),
    "convert": (_convert_options, _convert),
    "export": (export_options, export),
    "bench-infer": (bench_infer_options, bench_infer),
}

# What is true when a signal ends a command; `train` says more once it has opened the run
PROMISES = {
    "prepare": "the same command again prepares the pictures: a download goes on, what was unpacked stays",
    "train": "no run was changed; the same command trains",
}

if __name__ == "__main__":
    console()
