"""What files call the parameters of an AsymmNet: one table, and the rules to read it.

The authors released two ports and one checkpoint, and a Gluon network has two sets of names: those of its attributes
(`save_parameters`) and those of its graph (`collect_params().save`; `export` puts `arg:` or `aux:` before them). The
published checkpoint comes from an older class with other names again. Paddle's files have our own names, or those of
the authors' PyTorch code where somebody ported it.
Source: Spark001/AsymmNet @ 3b04821 and the log beside its checkpoint; every row is tested against them.
"""
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from asymmlib.network import BlockPlan

__all__ = ["NAMINGS", "Naming", "network_names"]

# {i}: number of the block; {f}, {h}: positions of block and head in Gluon's `features`; {s}: _seq-{i}-;
# {r}: asymmetry rate; {c}: Gluon's running number of the block, which a second network in one process continues
ATTRIBUTES = """
ours                      pytorch                             gluon                            published
stem.conv                 first_block.0                       features.0                       features.0
stem.bn                   first_block.1                       features.1                       features.1
blocks.{i}.expand.conv    asymm_block.{i}.expand.conv         features.{f}.expand.conv         features.{f}.expand.conv
blocks.{i}.expand.bn      asymm_block.{i}.expand.bn           features.{f}.expand.bn           features.{f}.expand.bn
blocks.{i}.depthwise.conv asymm_block.{i}.dw_conv.conv        features.{f}.dw_conv.conv        features.{f}.conv1.conv
blocks.{i}.depthwise.bn   asymm_block.{i}.dw_conv.bn          features.{f}.dw_conv.bn          features.{f}.conv1.bn
blocks.{i}.se.reduce      asymm_block.{i}.se.out.0            features.{f}.se.conv1            features.{f}.se.conv1
blocks.{i}.se.restore     asymm_block.{i}.se.out.2            features.{f}.se.conv2            features.{f}.se.conv2
blocks.{i}.project.conv   asymm_block.{i}.pw_conv_linear.conv features.{f}.pw_conv_linear.conv features.{f}.conv2.conv
blocks.{i}.project.bn     asymm_block.{i}.pw_conv_linear.bn   features.{f}.pw_conv_linear.bn   features.{f}.conv2.bn
head.conv                 last_block.0                        features.{h}                     features.{h}
head.bn                   last_block.1                        features.{h1}                    features.{h1}
features                  last_block.4                        features.{h4}                    features.{h4}
classifier                output                              output.0                         output.0
"""
GRAPH = """
ours                      gluon                                     published
stem.conv                 first-3x3-conv-conv2d                     first-3x3-conv-conv2d
stem.bn                   first-3x3-conv-batchnorm                  first-3x3-conv-batchnorm
blocks.{i}.expand.conv    asymmbottleneck{c}{s}asym{r}exp-conv2d    _modifyunitv3{c}__denseunit0{s}exp-conv2d
blocks.{i}.expand.bn      asymmbottleneck{c}{s}asym{r}exp-batchnorm _modifyunitv3{c}__denseunit0{s}exp-batchnorm
blocks.{i}.depthwise.conv asymmbottleneck{c}{s}depthwise-conv2d     _modifyunitv3{c}{s}depthwise-conv2d
blocks.{i}.depthwise.bn   asymmbottleneck{c}{s}depthwise-batchnorm  _modifyunitv3{c}{s}depthwise-batchnorm
blocks.{i}.se.reduce      asymmbottleneck{c}{s}se_fc1               _modifyunitv3{c}{s}se_fc1
blocks.{i}.se.restore     asymmbottleneck{c}{s}se_fc2               _modifyunitv3{c}{s}se_fc2
blocks.{i}.project.conv   asymmbottleneck{c}{s}pwlinear-conv2d      _modifyunitv3{c}{s}linear-conv2d
blocks.{i}.project.bn     asymmbottleneck{c}{s}pwlinear-batchnorm   _modifyunitv3{c}{s}linear-batchnorm
head.conv                 last-1x1-conv1-conv2d                     last-1x1-conv1-conv2d
head.bn                   last-1x1-conv1-batchnorm                  last-1x1-conv1-batchnorm
features                  last-1x1-conv2-conv2d                     last-1x1-conv2-conv2d
classifier                output_fc                                 output_fc
"""
# batch norm's weight, bias, _mean and _variance; other layers' weight and bias have one name everywhere
PYTORCH_NORM = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}
GLUON_NORM = {"weight": "gamma", "bias": "beta", "_mean": "running_mean", "_variance": "running_var"}
PADDLE_NORM = {leaf: leaf for leaf in PYTORCH_NORM}
LEAVES = {"weight": "weight", "bias": "bias"}
BEFORE_BLOCKS = 3  # Gluon's `features` starts with convolution, batch norm and activation of the stem


def _column(table, column):
    """One column of a table above: place in our network -> place in theirs."""
    header, *rows = (line.split() for line in table.strip().splitlines())
    return {row[0]: row[header.index(column)] for row in rows}


@dataclass(frozen=True)
class Naming:
    """One set of names: `places` from a table, batch norm's `norm`, what `joins` them; `exported` adds arg: or aux:."""

    places: dict[str, str]
    norm: dict[str, str]
    joins: str = "."
    exported: bool = False

    @property
    def gluon(self) -> bool:
        """Whether the names are those of a network of Gluon, which is the authors' other port."""
        return self.norm is GLUON_NORM

    @property
    def pattern(self) -> re.Pattern:
        """What matches a name of this naming at the end of a longer one, from a dot, a slash or the beginning on."""
        ends = {place: "|".join((self.norm if place.endswith(".bn") else LEAVES).values()) for place in self.places}
        forms = (re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(theirs.replace("{s}", "_seq-{i}-")))
                 + re.escape(self.joins) + f"(?:{ends[place]})" for place, theirs in self.places.items())
        return re.compile(r"(?:^|(?<=[./]))" + ("(?:arg:|aux:)" if self.exported else "") + f"(?:{'|'.join(forms)})$")

    def translate(self, names: Collection[str], asymmrate: int, first: int = 0) -> dict[str, str]:
        """Our names of a whole network -> theirs. `first` is Gluon's running number of block 0.

        Raises `ValueError` for a name that no AsymmNet has.
        """
        blocks = 1 + max((int(name.split(".")[1]) for name in names if name.startswith("blocks.")), default=-1)
        head = BEFORE_BLOCKS + blocks
        known = {"h": head, "h1": head + 1, "h4": head + 4, "r": asymmrate}
        return {name: self._translate(name, known, first) for name in names}

    def _translate(self, name, known, first):
        place, _, leaf = name.rpartition(".")
        block = re.match(r"blocks\.(\d+)\.", place)
        if block:
            number, place = int(block[1]), place.replace(block[1], "{i}", 1)
            known = {**known, "i": number, "s": f"_seq-{number}-", "f": BEFORE_BLOCKS + number,
                     "c": first + number}
        leaves = self.norm if place.endswith(".bn") else LEAVES
        if place not in self.places or leaf not in leaves:
            raise ValueError(f"{name} is no parameter of an AsymmNet: the authors' files have no name for it")
        prefix = ("aux:" if leaf in ("_mean", "_variance") else "arg:") if self.exported else ""
        return prefix + self.places[place].format(**known) + self.joins + leaves[leaf]


NAMINGS = {
    "pytorch": Naming(_column(ATTRIBUTES, "pytorch"), PYTORCH_NORM),
    "gluon": Naming(_column(ATTRIBUTES, "gluon"), GLUON_NORM),
    "gluon graph": Naming(_column(GRAPH, "gluon"), GLUON_NORM, "_"),
    "gluon export": Naming(_column(GRAPH, "gluon"), GLUON_NORM, "_", exported=True),
    "published": Naming(_column(ATTRIBUTES, "published"), GLUON_NORM),
    "published graph": Naming(_column(GRAPH, "published"), GLUON_NORM, "_"),
    "published export": Naming(_column(GRAPH, "published"), GLUON_NORM, "_", exported=True),
    "ours": Naming(_column(ATTRIBUTES, "ours"), PADDLE_NORM),
    "paddle": Naming(_column(ATTRIBUTES, "pytorch"), PADDLE_NORM),
}


def network_names(plans: Sequence[BlockPlan]) -> list[str]:
    """Our names of all parameters and running averages of a network with these blocks, in its own order."""
    return [f"{place}.{leaf}" for place, leaves in _places(plans) for leaf in leaves]


def _places(plans: Sequence[BlockPlan]) -> Iterator[tuple[str, Collection[str]]]:
    for place in ("stem", *(f"blocks.{plan.index}.{part}" for plan in plans for part in (
            *(["expand"] if plan.expands else []), "depthwise", *(["se"] if plan.se else []), "project")), "head"):
        if place.endswith(".se"):
            yield from ((f"{place}.{part}", LEAVES) for part in ("reduce", "restore"))
        else:
            yield from ((f"{place}.conv", ["weight"]), (f"{place}.bn", PADDLE_NORM))
    yield from (("features", ["weight"]), ("classifier", LEAVES))
