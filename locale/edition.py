"""Write the configuration of an edition of the book: _config.yml and _toc.yml with what that edition changes.

    python locale/edition.py en         what `make site` builds from; nothing but locale/stored.yml
    python locale/edition.py fresh      what `make book` builds from; the same with outputs that are new
    python locale/edition.py zh_CN      what `make book-zh` builds from
    python locale/edition.py gettext    what `make catalogues` reads the English text with

Not a translation itself: those are the catalogues in locale/<language>/LC_MESSAGES.
"""
import csv
import sys
from pathlib import Path

import yaml
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parents[1]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def merge(base, changes):
    """A copy of `base` in which `changes` wins; mappings are merged, lists grow, everything else is replaced."""
    if isinstance(base, list) and isinstance(changes, list):
        return base + changes
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return base | {key: merge(base[key], value) if key in base else value for key, value in changes.items()}


def messages(path):
    """{English: translation} of one catalogue; untranslated and unchecked (fuzzy) entries are left out."""
    with path.open("rb") as file:
        return {entry.id: entry.string for entry in read_po(file) if entry.id and entry.string and not entry.fuzzy}


def translate_captions(toc, catalogue):
    """A copy of the table of contents with its parts' captions translated: Sphinx leaves those alone."""
    parts = [part | {"caption": catalogue.get(part["caption"], part["caption"])} for part in toc["parts"]]
    return toc | {"parts": parts}


def read_terms(root=ROOT):
    """Rows of locale/terms.csv: mappings with the keys english, chinese and note; alternatives stand between `|`."""
    with (root / "locale" / "terms.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def words(terms):
    """The Chinese terms, one a line: words that the search index must not cut into pieces."""
    return "".join(f"{word}\n" for word in dict.fromkeys(w for row in terms for w in row["chinese"].split("|")))


def write(edition, folder=None, root=ROOT):
    """Write _config.yml, _toc.yml and words.txt into `folder` (default: _build/<edition>/), and return it."""
    config, toc = merge(load(root / "_config.yml"), load(root / "locale" / "stored.yml")), load(root / "_toc.yml")
    if edition == "fresh":
        del config["execute"]["exclude_patterns"]
    elif edition != "en":
        config = merge(config, load(root / "locale" / f"{edition}.yml"))
    extensions = config.get("sphinx", {}).get("local_extensions") or {}  # these paths start at the file's own folder
    extensions.update({name: str((root / path).resolve()) for name, path in extensions.items()})
    catalogue = root / "locale" / edition / "LC_MESSAGES" / f"{toc['root']}.po"
    if catalogue.is_file():
        toc = translate_captions(toc, messages(catalogue))
    folder = folder or root / "_build" / edition
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("_config.yml", config), ("_toc.yml", toc)):
        (folder / name).write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")
    (folder / "words.txt").write_text(words(read_terms(root)), encoding="utf-8")
    return folder


if __name__ == "__main__":
    print(write(*sys.argv[1:]).relative_to(ROOT))
