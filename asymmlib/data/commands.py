"""Options of the command line that say which pictures a command uses."""
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared

__all__ = ["data_options", "prepared_pictures"]

DATA_HELP = ('"sample" (drawn by this project), "caltech16", "caltech101", or the path of a folder of class folders '
             "or of a zip or tar of one; default: {}")


def data_options(command: ArgumentParser, default: str = "ASYMMLIB_DATA, else sample") -> None:
    """Add the options that `prepared_pictures` reads; default: which pictures there are without `--data`, in words."""
    command.add_argument("--data", help=DATA_HELP.format(default))
    command.add_argument("--archive", help="with either Caltech: a local copy of caltech-101.zip instead of a download")
    command.add_argument("--test-share", action="store_true", help="keep another fifth of every class for a test split")
    command.add_argument("--on-error", choices=("error", "skip"), default="error",
                         help="unreadable pictures: stop and list them, or leave them out and list them")
    command.add_argument("--names-encoding", metavar="ENCODING",
                         help="of the names in an archive that do not say it: gb18030, cp932, cp850, big5 ...")


def prepared_pictures(options: Namespace, data: str | None = None, test_share: bool = False) -> "Prepared":
    """The pictures that the options of `data_options` name; data, test_share: what holds where they say nothing."""
    from asymmlib.data.sources import prepare
    return prepare(options.data or data, archive=options.archive, test_share=options.test_share or test_share,
                   on_error=options.on_error, names_encoding=options.names_encoding)
