"""How to cite the book: what CITATION.cff says, as a sentence and for BibTeX."""
from typing import Any

import yaml

from asymmbook.checkout import project_root
from asymmbook.pages.publish import base_url, repository

__all__ = ["bibtex", "citation", "sentence"]


def citation() -> dict[str, Any]:
    """The facts of CITATION.cff, with the book's `address`: its site, else its repository, else ""."""
    facts, config = (yaml.safe_load((project_root() / name).read_text(encoding="utf-8"))
                     for name in ("CITATION.cff", "_config.yml"))
    address = base_url(config["html"]["baseurl"]) or repository(config["repository"]["url"])
    return facts | {"address": address, "authors": " and ".join(author["name"] for author in facts["authors"]),
                    "year": facts["date-released"][:4]}


def sentence() -> str:
    """The reference as a sentence of Markdown."""
    facts = citation()
    address = f" <{facts['address']}>." if facts["address"] else ""
    authors = facts["authors"][0].upper() + facts["authors"][1:]
    return f"{authors} ({facts['year']}). *{facts['title']}*, version {facts['version']}.{address}"


def bibtex() -> str:
    """The reference as an entry for BibTeX, in a block of Markdown."""
    facts = citation()
    fields = {"author": f"{{{facts['authors']}}}", "title": f"{{{facts['title']}}}", "year": facts["year"],
              "note": f"Version {facts['version']}"}
    if facts["address"]:
        fields["howpublished"] = f"\\url{{{facts['address']}}}"
    lines = ",\n".join(f"  {name} = {{{text}}}" for name, text in fields.items())
    return f"```bibtex\n@misc{{asymmnetbook,\n{lines}\n}}\n```"
