"""The command line of the book's makers: `python -m asymmbook COMMAND --help` explains each command."""
import sys
from pathlib import Path

from asymmbook.checkout import project_root
from asymmlib.base.commands import run_command

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        project_root()
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_command(COMMANDS, "asymmbook", "What only the making of the book needs: recorded runs, results, "
                       "weights, drawings.", arguments, PROMISES)


def _experiments_options(command):
    command.add_argument("action", choices=("status", "run", "collect", "near-copies"),
                         help="count the runs of the plan by group; train what is missing; write finished runs to "
                              "results/trial/; find the near-copies in Caltech-101 anew")
    command.add_argument("--only", metavar="PATTERN", default="*", help="names to include, such as 'a-*-64px-*'")
    command.add_argument("--jobs", type=int, default=1, help="runs side by side, one thread each (default: 1)")
    command.add_argument("--again", metavar="NAME", help="with run: train a recorded run once more, and compare")


def _experiments(options):
    """The trial of results/protocol.md: count the planned runs, do the missing ones, record the finished ones.

    May be killed at any moment; the same command goes on where it was. The data is all of Caltech-101:
    python -m asymmlib prepare --data caltech101, once, before.
    """
    from asymmbook.evidence import folds, trial_runner
    if options.action == "near-copies":
        print(f"{len(folds.write_near_copies())} pairs")
        return
    if options.again:
        curves, text = trial_runner.again(options.again)
        print(curves.to_string(index=False), text, sep="\n")
        return
    if options.action == "run":
        trial_runner.run(options.only, options.jobs)
    if options.action == "collect":
        trial_runner.collect(options.only)
    print(trial_runner.status(options.only).to_string(index=False))


def _results(options):
    """Print the sentences of the trial's tests, question by question; a question that waits for runs is left out."""
    from asymmbook.evidence.verdicts import answered, families
    for family in families():
        if (table := answered(family)) is not None:
            print(*table["sentence"], sep="\n")


def _release_options(command):
    command.add_argument("--renew", action="store_true", help="only write today's settings and digests into the files "
                                                              "that are there; needs no run, and no tensor changes")


def _release(options):
    """Write the networks that the plan trained for release, and their model card, to weights/.

    Needs these runs themselves and their pictures; stores float16 where no answer changes.
    """
    from asymmbook.evidence.release import release, renew
    if options.renew:
        return renew()
    for model, classifier in release().items():
        info = classifier.provenance
        test = info["accuracy"]["test"]
        print(f"{model}: {info['run']}, epoch {info['epoch']}, {info['dtype']}, {test['right']} of {test['pictures']} "
              f"test pictures right ({test['top1']:.1%})")


def _archive_options(command):
    command.add_argument("--archive", help="a local copy of caltech-101.zip instead of a download")


def _int8_options(command):
    _archive_options(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--latency", action="store_true", help="time the files instead; on a machine at rest")
    what.add_argument("--scratch", type=Path, metavar="FOLDER", help="measure the MobileNetV2 of an earlier release "
                      "instead, trained from random weights: mobilenet_v2.json and .safetensors")


def _int8(options):
    """Measure the released networks as float32, float16 and int8 files on the test pictures -> results/int8*.csv.

    Needs the extras `ship` and `quantise`, and Caltech-101. Times of files go to results/int8-latency.csv.
    """
    from asymmbook.evidence.int8 import record, record_latency
    from asymmlib.data.sources import prepare
    prepared = prepare("caltech16", archive=options.archive, test_share=True)
    table = record_latency(prepared) if options.latency else record(prepared, options.scratch)
    print(table.drop(columns=["cpu", "versions"]).to_string(index=False, float_format="{:.3g}".format))


def _unknown(options):
    """Measure when the released networks should say "none of these" -> results/unknown.csv, and the cards in weights/.

    By the rule of results/protocol.md; needs all of Caltech-101.
    """
    from asymmbook.evidence.unknown import record
    from asymmlib.data.sources import prepare
    everything = prepare("caltech101", archive=options.archive)
    table = record(prepare("caltech16", archive=options.archive, test_share=True), everything)
    print(table.iloc[:, :13].T.to_string(float_format="{:.3g}".format))


def _heads(options):
    """Learn heads from five pictures of classes that no training saw -> results/heads.csv, by results/protocol.md.

    Needs all of Caltech-101.
    """
    from asymmbook.evidence.heads import record, summary
    from asymmlib.data.sources import prepare
    print(summary(record(prepare("caltech101", archive=options.archive))).to_string(float_format="{:.3g}".format))


def _live_operators(options):
    """Measure where the time goes in WebAssembly, by operator -> results/live-operators.csv; needs Chromium."""
    from asymmbook.pages.wasm import record
    print(record().iloc[:, :4].to_string(index=False, float_format="{:.3g}".format))


def _live_webgpu(options):
    """Measure the live page's networks by WebGPU and by WebAssembly -> results/live-webgpu.csv.

    Needs Chromium and a graphics chip that it reaches by Vulkan.
    """
    from asymmbook.pages.webgpu import record
    print(record().iloc[:, :12].to_string(index=False, float_format="{:.3g}".format))


def _drawn(options):
    """Train the live page's network of drawn things anew, a quarter of an hour of one thread -> book/live/."""
    from asymmbook.evidence.drawn import drawings, drawn_file, train_drawn
    found = train_drawn().evaluate(drawings())
    print(f"{drawn_file()}: {int(found.right.sum())} of {len(found.right)} eval drawings right")


def _draw(options):
    """Draw the figures that the pages show, book/images/ and its cards, anew."""
    from asymmbook.figures.diagrams import write_images
    from asymmbook.figures.thumbnails import write_thumbnails
    for path in (*write_images(), *write_thumbnails()):
        print(path)


def _visualdl(options):
    """Photograph VisualDL with the runs that notebook 3 has left in runs/, for both editions; needs Chromium."""
    from asymmbook.pages.visualdl import write_photographs
    print(*write_photographs(), sep="\n")


def _font(options):
    """Cut the font of the Chinese drawings anew, after new characters in the catalogue of outputs."""
    from asymmbook.editions.font import write
    for path in write():
        print(f"{path}: {path.stat().st_size} bytes")


def _untranslated(options):
    """Print what stored notebooks and executed pages put out that has no Chinese words yet; exit status 0.

    Pages are those of the last `make executed`.
    """
    from asymmbook.editions.coverage import untranslated
    left = list(untranslated("zh_CN"))
    for place, text, words in left:
        print(place, ", ".join(words), text, sep="\n    ")
    print(f"{len(left)} texts are not wholly translated")


def _execute_options(command):
    command.add_argument("folder", type=Path, help="the cache of outputs, which jupyter-cache reads")
    command.add_argument("pages", nargs="+", type=Path, metavar="PAGE", help="notebooks, and pages in Markdown")


def _execute(options):
    """Execute notebooks and pages side by side into a cache; what fails is named, and left to the build.

    `make book` and `make executed` call this. Cores are shared out among at most four pages at a time.
    """
    from asymmbook.pages.execution import execute
    execute(options.pages, options.folder)


def _pdf_options(command):
    command.add_argument("edition", choices=("en", "zh_CN"), help="the language to print")


def _pdf(options):
    """Print the whole book to _build/pdf/; `make pdf` builds what is printed and calls this. Needs Chromium."""
    from asymmbook.pages.pdf import print_book
    print(print_book(options.edition))


def _no_options(command):
    pass


# command: (its options, what it does)
COMMANDS = {
    "experiments": (_experiments_options, _experiments),
    "results": (_no_options, _results),
    "release": (_release_options, _release),
    "int8": (_int8_options, _int8),
    "unknown": (_archive_options, _unknown),
    "heads": (_archive_options, _heads),
    "live-operators": (_no_options, _live_operators),
    "live-webgpu": (_no_options, _live_webgpu),
    "drawn": (_no_options, _drawn),
    "draw": (_no_options, _draw),
    "visualdl": (_no_options, _visualdl),
    "font": (_no_options, _font),
    "untranslated": (_no_options, _untranslated),
    "execute": (_execute_options, _execute),
    "pdf": (_pdf_options, _pdf),
}

PROMISES = {"experiments": "the same command goes on where it was"}  # when a signal ends them

if __name__ == "__main__":
    sys.exit(main())
