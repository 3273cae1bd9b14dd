"""The plan of the trial as data: every run of results/protocol.md, by which recipe, on which pictures.

They come in groups, in the order of `GROUPS`; a, c, d, b, e and f are the questions, the others serve them. Which
settings a network gets is known once its tuning is done; until then its runs are listed as waiting.
"""
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from asymmbook.evidence import shipping, transfer
from asymmbook.evidence.folds import FOLDS, REPEATS
from asymmbook.evidence.tuning import NETWORKS, Setting, network_key, tuning
from asymmlib.recipes import RECIPES, Recipe

__all__ = ["BASE", "GROUPS", "LIGHT", "MATCHED", "PACES", "PLAIN", "TrialRun", "hours", "network_key", "plan"]

GROUPS = {"tune": "settings, chosen on next16", "time": "training time, on a quiet machine", "a": "which network?",
          "c": "the article's experiment at its own size", "d": "what is each flaw worth?",
          "b": "does the asymmetry pay where the paper says?", "e": "what would help more than the architecture?",
          "f": "why?", "default": "what Paddle's default costs a depthwise network",
          "spread": "one setting again with other seeds", "transfer": "pre-trained or from scratch, at equal cost?",
          "weights": "by which recipe are the released weights trained?"}
BASE = Recipe("base", image_size=64, epochs=30, batch_size=32, base_lr=0.05, data="caltech16")
PLAIN = BASE.replace(name="64px")  # the base recipe where nothing is asked of the recipe
LIGHT = tuple(NETWORKS)
WIDTHS = (0.35, 0.5, 0.75, 1.0)
# r = 0 at the width whose parameters come nearest to those of r = 1 (tests/book/test_trial.py checks 3 %)
MATCHED = {0.35: 0.37, 0.5: 0.53, 0.75: 0.8, 1.0: 1.07}
PAIR = transfer.NETWORKS  # who the later questions are asked of
HEAVY = {"resnet50": (0.01, 0.05), "vgg19": (0.001, 0.005, 0.01)}  # rates to choose from, in one run each
SHORT = 3  # epochs of VGG19's runs that choose its rate: a full one takes 2.5 hours there
# Images a second on one thread, beside another run, as measured or estimated before the trial; recorded runs replace
# them. (model, size):
PACES = {("asymmnet_large", 64): 240, ("asymmnet_small", 64): 350, ("mobilenet_v2", 64): 240,
         ("mobilenet_v3_large", 64): 240, ("asymmnet_large", 128): 75, ("asymmnet_small", 128): 110,
         ("mobilenet_v2", 128): 60, ("mobilenet_v3_large", 128): 75, ("resnet50", 64): 12.5, ("vgg19", 64): 3.2,
         ("asymmnet_large", 256): 30, ("mobilenet_v2", 256): 20}
PICTURES = {"caltech16": 1817, "next16": 1215, "hundred": 8242, "pretrain85": 6860, "pretrain69": 5645,
            "pretrain74": 6000, "pretrain58": 4785}
OVERHEAD_S = 12  # start of a process, and evaluation
ABLATIONS = ("left", "right", "zeros", "new", "shuffled")


class TrialRun(NamedTuple):
    """One run; `name` is its folder below runs/ and its row in results/trial/runs.csv.

    model, settings: as `asymmlib.training.train` takes them. pictures: a set of `asymmbook.evidence.folds`; fold None
    is the article's every-fifth rule, with a test share where the recipe says so. start: the name of the run from whose
    last weights it begins. awaits: the network (or run) whose result is missing before this run can start, else None.
    """

    group: str
    model: str
    settings: dict[str, Any]
    recipe: Recipe
    pictures: str
    repeat: int | None = None
    fold: int | None = None
    start: str | None = None
    awaits: str | None = None

    @property
    def name(self) -> str:
        """group-network-recipe-pictures-repeat and fold, readable and unique."""
        where = "rule" if self.fold is None else f"r{self.repeat}f{self.fold}"
        return "-".join([self.group, self.network, self.recipe.name, self.pictures, where])

    @property
    def network(self) -> str:
        """The key of model and settings."""
        return network_key(self.model, self.settings)


def plan(scores: Mapping[str, float] | None = None) -> tuple[TrialRun, ...]:
    """All runs that are known so far, in the order of `GROUPS`, as a tuple of `TrialRun`.

    scores: {run: top-1 on the held-out fold after the last epoch} of the finished runs; tuning goes on from them.
    """
    scores = {} if scores is None else scores
    tuned = {network: tuning(network, scores) for network in LIGHT}
    runs = [*_tune(tuned, scores), *_time(scores), *_which(tuned, scores), *_article(), *_flaws(), *_asymmetry(tuned),
            *_help(tuned), *_why(tuned), *_default(tuned), *_spread(tuned), *_transfer(scores),
            *_weights(scores)]
    return tuple(runs)


def _on(group, network, recipe, pictures, repeat=None, fold=None, settings=None, **more):
    """A run of a light network (key of `NETWORKS`) or another model; the seed is that of repeat and fold."""
    model, own = NETWORKS.get(network, (network, {}))
    seed = recipe.seed if fold is None else 10 * repeat + fold
    settings = {**own, **(settings or {})}
    return TrialRun(group, model, settings, recipe.replace(seed=seed), pictures, repeat, fold, **more)


def _chosen(tuned, network, recipe):
    """({recipe with the network's own rate and weight decay, awaits}) for `_on`."""
    best = tuned[network].best
    if best is None:
        return recipe, network
    return recipe.replace(base_lr=best.rate, weight_decay=best.decay), None


def _folds(repeats=1, folds=FOLDS):
    return [(repeat, fold) for repeat in range(repeats) for fold in range(folds)]


def _tuned_runs(group, tuned, network, recipe, pictures, folds, **more):
    recipe, awaits = _chosen(tuned, network, recipe)
    return [_on(group, network, recipe, pictures, repeat, fold, **{"awaits": awaits, **more}) for repeat, fold in folds]


def _tune(tuned, scores):
    for network in LIGHT:
        for setting, fold in tuned[network].runs:
            yield _on("tune", network, setting_recipe(setting), "next16", 0, fold)
    for model in HEAVY:
        yield from _tune_heavy(model)


def _tune_heavy(model):
    epochs = SHORT if model == "vgg19" else BASE.epochs
    for rate in HEAVY[model]:
        recipe = setting_recipe(Setting(rate, BASE.weight_decay)).replace(epochs=epochs)
        yield _on("tune", model, recipe, "next16", 0, 0)


def setting_recipe(setting: Setting) -> Recipe:
    """The recipe of a tuning run."""
    return BASE.replace(name=setting.name, base_lr=setting.rate, weight_decay=setting.decay)


def _time(scores):
    """All at one rate but VGG19, which diverges at it: a run of its own name, at its own rate."""
    recipe = BASE.replace(name="quiet", epochs=3)
    for network in LIGHT:
        yield _on("time", network, recipe, "caltech16", 0, 0)
    for network, rates in HEAVY.items():
        few, awaits = recipe.replace(train_per_class=8), None
        if BASE.base_lr not in rates:
            rate, awaits = _heavy_rate(network, scores)
            few = few.replace(name="quiet-own-rate", base_lr=rate)
        yield _on("time", network, few, "caltech16", 0, 0, awaits=awaits)


def _heavy_rate(model, scores):
    """(the better of a heavy network's rates, awaits) by its tuning runs, once they are known."""
    found = {run.recipe.base_lr: scores.get(run.name) for run in _tune_heavy(model)}
    if None in found.values():
        return BASE.base_lr, model
    return max(found, key=lambda rate: (found[rate], -rate)), None


def _which(tuned, scores):
    for network in LIGHT:
        yield from _tuned_runs("a", tuned, network, PLAIN, "caltech16", _folds(REPEATS))
    for network in LIGHT:
        yield from _tuned_runs("a", tuned, network, BASE.replace(name="128px", image_size=128), "caltech16", _folds())
    for model in HEAVY:
        rate, awaits = _heavy_rate(model, scores)
        for _, fold in _folds(folds=3 if model == "resnet50" else 1):
            yield _on("a", model, PLAIN.replace(base_lr=rate), "caltech16", 0, fold, awaits=awaits)


def _article():
    """Batches per epoch are 45, as in the article, where the last, smaller one is left out: its swings end near 0."""
    as_published = RECIPES["article"].replace(name="article", drop_last=True)
    mended = RECIPES["article-fixed"].replace(name="article-fixed", drop_last=True)
    for network, recipe in ((PAIR[0], as_published), (PAIR[0], mended), (PAIR[1], mended)):
        yield _on("c", network, recipe, "caltech16")


MENDED = {"schedule": {"schedule": "cosine"}, "weight-decay": {"asymmnet_weight_decay": None},
          "normalisation": {"normalisation": "measured"}, "interpolation": {"augmentation": "rotate"}}


def _flaws():
    """With 45 batches the swings of the published schedule end near 0, with 46 (`ends-high`) at the peak."""
    flawed = RECIPES["article"].replace(name="flawed", image_size=64, epochs=30, drop_last=True)
    everything = {key: value for change in MENDED.values() for key, value in change.items()}
    recipes = [flawed, flawed.replace(name="flawed-ends-high", drop_last=False),
               *(flawed.replace(name=f"mended-{name}", **change) for name, change in MENDED.items()),
               flawed.replace(name="mended-all", **everything)]
    for network in PAIR:
        for recipe in recipes:
            if network == PAIR[1] and recipe.name == "mended-weight-decay":
                continue  # differs for AsymmNet alone
            for repeat, fold in _folds():
                yield _on("d", network, recipe, "caltech16", repeat, fold)


def _asymmetry(tuned):
    for width in (0.5, 1.0, 0.35, 0.75):  # two widths first, in case hours end
        for network, own in (("asymmnet_large-r1", width), ("asymmnet_large-r0", width),
                             ("asymmnet_large-r0", MATCHED[width])):
            yield from _tuned_runs("b", tuned, network, PLAIN, "hundred", _folds(),
                                   settings={"width": own})


HELP = {"flip": {"augmentation": "rotate-flip"}, "crop-flip": {"augmentation": "crop-flip"},
        "colour": {"augmentation": "crop-flip-colour"}, "long": {"epochs": 100},
        "long-crop-flip": {"epochs": 100, "augmentation": "crop-flip"}}


def _help(tuned):
    """On next16 first, where the recommendation is chosen, then on caltech16, which confirms it."""
    for pictures, others in (("next16", "pretrain69"), ("caltech16", "pretrain85")):
        # on next16, other folds than the tuning had: its best score there is too good, being the best of many
        where = [(int(pictures == "next16"), fold) for fold in range(FOLDS)]
        for network in PAIR:
            for name, change in HELP.items():
                yield from _tuned_runs("e", tuned, network, BASE.replace(name=name, **change), pictures, where)
            if pictures == "next16":  # on caltech16, group a has these runs
                yield from _tuned_runs("e", tuned, network, PLAIN, pictures, where)
            recipe, awaits = _chosen(tuned, network, BASE.replace(name="source"))
            source = _on("e", network, recipe, others, awaits=awaits)
            yield source
            yield from _tuned_runs("e", tuned, network, BASE.replace(name="pretrained"), pictures, where,
                                   start=source.name)


def _why(tuned):
    recipe, awaits = _chosen(tuned, "asymmnet_large-r1", PLAIN)
    for kind in ABLATIONS:
        for repeat, fold in _folds():
            yield _on("f", f"ablation_{kind}", recipe, "caltech16", repeat, fold, awaits=awaits)


def _default(tuned):
    for network in ("asymmnet_large-r1", "mobilenet_v2", "mobilenet_v3_large"):
        kinds = {"paddle-default": {"initialisation": "paddle-default"}}
        if network == "mobilenet_v3_large":
            kinds["paddle-default-own-norm"] = {"initialisation": "paddle-default", "norm": "as-built"}
        for name, change in kinds.items():
            yield from _tuned_runs("default", tuned, network, BASE.replace(name=name, **change), "caltech16", _folds())


def _spread(tuned):
    for network in PAIR:
        recipe, awaits = _chosen(tuned, network, BASE)
        for seed in (100, 101, 102, 103):
            run = _on("spread", network, recipe.replace(name=f"seed{seed}"), "caltech16", 0, 0, awaits=awaits)
            yield run._replace(recipe=run.recipe.replace(seed=seed))


def _transfer(scores):
    """First the choice of the setting on next16, then one network after the other: pre-trained, then from scratch."""
    sources = {(network, pictures): _on("transfer", network, BASE.replace(name="source",
                                                                          epochs=transfer.SOURCE_EPOCHS), others)
               for pictures, others in transfer.SOURCES.items() for network in PAIR}
    yield from (sources[network, "next16"] for network in PAIR)
    for fold in range(transfer.GRID_FOLDS):
        for network in PAIR:
            for thaw in transfer.GRID:
                recipe = _fine_tuning(thaw.name, transfer.GRID_SIZE, thaw)
                yield _on("transfer", network, recipe, "next16", 1, fold, start=sources[network, "next16"].name)
    chosen = transfer.thawing(scores)
    for network in PAIR:
        yield (source := sources[network, "caltech16"])
        recipes = [_fine_tuning(size, size, chosen or transfer.GRID[0]) for size in transfer.SIZES]
        for repeat, fold in _folds():
            yield from (_on("transfer", network, recipe, "caltech16", repeat, fold, start=source.name,
                            awaits=None if chosen else "thawing") for recipe in recipes)
        for size in transfer.SCRATCH[network]:
            recipe = BASE.replace(name=f"scratch-{size}", train_per_class=transfer.SIZES[size],
                                  epochs=transfer.scratch_epochs(size), passes=transfer.PASSES[size])
            yield from (_on("transfer", network, recipe, "caltech16", repeat, fold) for repeat, fold in _folds())


def _fine_tuning(name, size, thaw):
    return BASE.replace(name=name, epochs=transfer.EPOCHS, train_per_class=transfer.SIZES[size],
                        frozen_epochs=thaw.frozen, backbone_rate=thaw.rate)


def _weights(scores):
    """The candidates on next16 by two networks, then what is released, by the one that won."""
    base = BASE.replace(image_size=shipping.SIZE)

    def source(network, pictures):
        return _on("weights", network, base.replace(name="source", **shipping.SOURCE), shipping.SOURCES[pictures])
    for network in shipping.NETWORKS:
        yield (start := source(network, "next16"))
        for name, (pretrained, changes) in shipping.CANDIDATES.items():
            yield _on("weights", network, base.replace(name=name, **changes), "next16", shipping.REPEAT, shipping.FOLD,
                      start=start.name if pretrained else None)
    best = shipping.chosen(scores)
    pretrained, changes = shipping.CANDIDATES[best or next(iter(shipping.CANDIDATES))]
    for network in shipping.RELEASED:
        yield (start := source(network, "caltech16"))
        yield _on("weights", network, base.replace(name="released", test_share=True, **changes), "caltech16",
                  start=start.name if pretrained else None, awaits=None if best else "recipe")


def hours(runs: Iterable[TrialRun], paces: Mapping[tuple[str, int], float] | None = None) -> float:
    """Hours of one thread that runs take: pictures trained on, by images a second (see `PACES`), and their start.

    paces: {(model, size): images a second} that replace the ones of the plan.
    """
    paces, seconds = {**PACES, **(paces or {})}, 0.0
    for run in runs:
        model = "asymmnet_large" if run.model.startswith("ablation_") else run.model
        trained = PICTURES[run.pictures] * (1 - 1 / FOLDS)
        if run.recipe.train_per_class:
            trained = min(trained, 16 * run.recipe.train_per_class)
        trained *= run.recipe.passes
        width = run.settings.get("width", 1.0)
        seconds += OVERHEAD_S + trained * run.recipe.epochs / paces[model, run.recipe.image_size] * max(0.4, width)
    return seconds / 3600
