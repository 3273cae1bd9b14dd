"""The command line of the book's makers: `python -m asymmbook COMMAND --help` explains each command."""
import sys

from asymmbook.checkout import project_root
from asymmlib.__main__ import run_command

__all__ = ["main"]


def main(arguments=None):
    """Run one command; return its exit status."""
    try:
        project_root()
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run_command(COMMANDS, "asymmbook", "What only the making of the book needs: recorded runs, results, "
                       "weights, drawings.", arguments, PROMISES)


def _experiments_options(command):
    command.add_argument("action", choices=("status", "run", "collect"),
                         help="list the plan; train what is missing; write finished runs to results/")
    command.add_argument("--only", metavar="PATTERN", default="*", help="names to include, such as 'compare-*'")


def _experiments(options):
    """The recorded comparison: list the planned runs, do the missing ones, record the finished ones.

    May be killed at any moment; the same command goes on where it was. The data is Caltech-16:
    python -m asymmlib prepare --data caltech16, once, before.
    """
    from asymmbook.evidence import runner
    if options.action == "run":
        runner.run_experiments(options.only)
    if options.action == "collect":
        runner.collect_experiments(options.only)
    print(runner.status(options.only).to_string(index=False))


def _results(options):
    """Print the sentences that the recorded runs allow, as the page of results shows them."""
    from asymmbook.pages import results
    print(results.short())


def _release(options):
    """Write the best recorded AsymmNets with their model card to weights/.

    Best by the eval split; needs the runs themselves and their pictures, and stores float16 where no accuracy changes.
    """
    from asymmbook.evidence.release import release
    for model, classifier in release().items():
        info = classifier.provenance
        test = info["accuracy"]["test"]
        print(f"{model}: {info['run']}, epoch {info['epoch']}, {info['dtype']}, {test['right']} of {test['pictures']} "
              f"test pictures right ({test['top1']:.1%})")


def _draw(options):
    """Draw the figures that the pages show, book/images/*.svg, anew."""
    from asymmbook.figures.diagrams import write_images
    for path in write_images():
        print(path)


def _no_options(command):
    pass


# command: (its options, what it does)
COMMANDS = {
    "experiments": (_experiments_options, _experiments),
    "results": (_no_options, _results),
    "release": (_no_options, _release),
    "draw": (_no_options, _draw),
}

PROMISES = {"experiments": "the same command goes on where it was"}  # when a signal ends them

if __name__ == "__main__":
    sys.exit(main())
