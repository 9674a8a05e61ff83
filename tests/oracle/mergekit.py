#!/usr/bin/env python3
"""Does `mergegrid merge` compute what mergekit computes, for every method that both have?

    tests/oracle/mergekit.py --check [METHOD...]   merges with both (MERGEGRID_BINARY; the functions of mergekit 0.1.5 on the same tensors)
                                                   and compares every element: of the demonstration's sources, and of corner cases

Differences are counted in roundings: 2^-24 of the largest of the weights that went into the element. mergekit computes twice: in double,
where what is left is our one rounding, and in float, as it does by default. Weights are binary fractions, so that the sign of no sum hangs
on a rounding. Heads, which the base lacks, are held against mergekit's linear merge: that is what `head: linear` means.

Where the two differ, and what is compared there:
  - ties, breadcrumbs, sce: of equal magnitudes (variances) at a cut mergekit keeps as many as the density says, whichever its sort has
    first; mergegrid keeps all. Compared are the elements that no such magnitude went into; and all elements with a mergekit that is made to
    cut so.
  - dare, della: other random numbers. mergekit gets mergegrid's masks, which are held against the probabilities that it asks for.
  - multislerp: mergekit adds 1e-8 to the norm of a task vector, which shows where that is small (key biases). With 1e-30 it does not.
  - arcee_fusion: mergekit's divergences of rows are noise in float, and have 1e-8 added to probabilities in double: compared are elements
    that this does not decide, and all elements with a mergekit that does not add it.
  - DIFFERENCES: corners where mergekit's floors, meant to avoid divisions by zero, change what is merely small. There ours is held
    against the formula.
  - Defaults differ (density, normalisation, rescaling, weights): the cases say theirs in our terms.
"""
import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.pop(0)  # this file's folder, where mergekit is this file
try:
    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file
    from mergekit import sparsify
    from mergekit.merge_methods import arcee_fusion, sce
    from mergekit.merge_methods.api import merge_tensors
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

DEMO = pathlib.Path(__file__).resolve().parent.parent / "data" / "emoji48"
BINARY = os.environ.get("MERGEGRID_BINARY", str(DEMO.parent.parent.parent / "build" / "mergegrid"))
THREE = {"en-US": 0.5, "es-ES": 0.375, "sw-KE": 0.125}
TWO, HALVES = {"en-US": 0.625, "sw-KE": 0.375}, {"en-US": 0.5, "sw-KE": 0.5}


def mergegrid(*args):
    done = subprocess.run([BINARY, *args], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
    if done.returncode:
        sys.exit(f"mergegrid {' '.join(args)}: {done.stderr[:2000]}")
    return done.stdout


def mergekit(method, tensors, base_index, parameters, dtype=torch.float64):
    """mergekit's merge of one tensor."""
    merged = merge_tensors([torch.from_numpy(x) for x in tensors], method, parameters=parameters, base_index=base_index, dtype=dtype)
    return merged.double().numpy()


def tensors_of(directory):
    return {name: value.astype(np.float32) for name, value in load_file(f"{directory}/model.safetensors").items()}


class Family:
    def __init__(self, folder, base, pattern):
        os.makedirs(folder)
        self.folder, self.count, self.paths = folder, 0, {"base": str(base), "sources": str(pattern)}
        self.base = tensors_of(base)
        self.sources = {id: tensors_of(str(pattern).format(locale=id)) for id in THREE}

    def merged(self, method, sources):
        """What mergegrid makes of it."""
        self.count += 1
        with open(f"{self.folder}/m.yaml", "w", encoding="utf-8") as file:
            file.write(f"shards: none\nfamily: {json.dumps(self.paths)}\nrecipe: {json.dumps({'method': method, 'sources': sources})}\n")
        mergegrid("merge", "-c", f"{self.folder}/m.yaml", "-o", f"{self.folder}/{self.count}", "--quiet")
        return tensors_of(f"{self.folder}/{self.count}")

    def thetas(self, name, ids):
        return [self.sources[id][name] for id in ids]

    def deltas(self, name, ids):
        return [theta - self.base[name] for theta in self.thetas(name, ids)]


# ---- cuts ----

def cuts(size, density, gamma=None):
    """How many of the largest lie above each cut, as mergekit counts; breadcrumbs' has two."""
    if density >= 1:
        return []
    if gamma is None:
        return [max(1, int(density * size))]
    kept = int(density * size)
    bottom = max(0, size - kept - int(gamma * size))
    return [size - bottom, size - bottom - kept]


def at_a_cut(deltas, parameters):
    """Where one of them has a magnitude that a cut goes through (there is nothing in keeping zeros)."""
    if "select_topk" in parameters:
        return at_a_variance_cut(deltas, parameters)
    where = np.zeros(deltas[0].shape, bool)
    for delta in deltas:
        order = np.sort(np.abs(delta), axis=None)[::-1]
        for cut in cuts(delta.size, **parameters):
            if 0 < cut < delta.size and order[cut - 1] == order[cut] > 0:
                where |= np.abs(delta) == order[cut]
    return where


def cut_by_value(tensor, density, rescale_norm=None, gamma=None):
    size = tensor.abs().reshape(-1)
    order, keep = size.sort(descending=True).values, torch.ones_like(size)
    for k, above in enumerate(cuts(size.numel(), density, gamma)):
        if k == 0:
            keep *= size >= order[above - 1] if above > 0 else 0
        elif above > 0:
            keep *= size <= order[above]
    return sparsify.rescaled_masked_tensor(tensor, keep.reshape_as(tensor), rescale_norm)


def variance_cut(variances, density):
    """The variance of the last one of sce's selection, which is not empty; 0 where all are selected."""
    differing = np.count_nonzero(variances)
    return np.sort(variances, axis=None)[::-1][max(int(differing * density), 1) - 1] if density < 1 and differing > 0 else 0


def at_a_variance_cut(deltas, parameters):
    """Nowhere; but everywhere where several variances are the cut's, up to a float's rounding: the weights go by what is selected."""
    variances = np.var(np.stack(deltas).astype(float), axis=0)
    cut = variance_cut(variances, parameters["select_topk"])
    return np.full(variances.shape, cut > 0 and np.count_nonzero(np.abs(variances - cut) <= 1e-5 * cut) > 1)


def variance_by_value(deltas, density, mask_dtype=None):
    variances = np.var(deltas.double().numpy(), axis=0)
    return torch.from_numpy(variances >= variance_cut(variances, density) * (1 - 1e-7)).to(mask_dtype)


def importance(b, a):
    """arcee_fusion's, in long double, with nothing added to probabilities, and so that nothing cancels."""
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    p = np.exp(b - b.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    x = b - a - (p * (b - a)).sum(axis=-1, keepdims=True)
    return np.abs(b - a) * np.log1p((p * (np.expm1(-x) + x)).sum(axis=-1, keepdims=True))


def threshold(importances):
    order = np.sort(importances, axis=None)
    q1, median, q3 = (order[k * (order.size - 1) // 4] for k in (1, 2, 3))
    return median + 1.5 * (q3 - q1)


def at_a_threshold(thetas):
    """Where 1e-8 in probabilities may decide."""
    importances = importance(thetas[1], thetas[0])
    cut = threshold(importances)
    return np.abs(importances - cut) <= 1e-3 * cut


@contextlib.contextmanager
def equals_stay_together():
    """mergekit with our cuts (of arcee_fusion's importances as floats, since multiples of one rounding may be the threshold's)."""
    before = sparsify.magnitude, sparsify.magnitude_outliers, sce.sce_mask, arcee_fusion._compute_importance
    sparsify.magnitude, sparsify.magnitude_outliers, sce.sce_mask = cut_by_value, cut_by_value, variance_by_value
    arcee_fusion._compute_importance = lambda b, a: torch.from_numpy(importance(b.numpy(), a.numpy()).astype(np.float32)).double()
    try:
        yield
    finally:
        sparsify.magnitude, sparsify.magnitude_outliers, sce.sce_mask, arcee_fusion._compute_importance = before


# ---- masks ----

@contextlib.contextmanager
def drawn(masks, asked):
    """mergekit draws these, source by source; asked collects with which probabilities it wanted them."""
    queue, before = list(masks), torch.bernoulli

    def draw(probabilities, *_, **__):
        asked.append(probabilities.double().numpy().ravel())
        return torch.from_numpy(queue.pop(0)).to(probabilities.dtype).reshape(probabilities.shape)
    torch.bernoulli = draw
    try:
        yield
    finally:
        torch.bernoulli = before


class Masks:
    """What mergegrid keeps of each source, from merges of one source; of elements that did not change nobody can tell."""
    def __init__(self, family, method, parameters, ids):
        alone = {id: family.merged({method: {**parameters, "rescale": "none"}}, {id: 1}) for id in ids}
        self.kept = {name: [alone[id][name] != value for id in ids] for name, value in family.base.items()}
        self.changed = {name: [delta != 0 for delta in family.deltas(name, ids)] for name in family.base}
        self.seen = []

    def note(self, name, asked):
        for kept, changed, p in zip(self.kept[name], self.changed[name], asked):
            self.seen.append((np.broadcast_to(p, kept.size)[changed.ravel()], kept[changed]))

    def compare(self):
        """Standard errors between what was kept and the sum of the probabilities, the worst of tenths of their range."""
        p, kept = (np.concatenate(x) for x in zip(*self.seen))
        worst, edges = 0, np.linspace(p.min(), p.max(), 11)
        for low, high in zip(edges, edges[1:]):
            here = (p >= low) & (p <= high)
            if here.any():
                worst = max(worst, abs(kept[here].sum() - p[here].sum()) / math.sqrt((p[here] * (1 - p[here])).sum()))
        return worst, f"kept {kept.mean():.4f} of {kept.size}, asked for {p.mean():.4f} (at most {worst:.1f} standard errors apart)"


# ---- comparing ----

def roundings(got, expected, inputs, where=True):
    """The largest difference in roundings of the largest weight that went into it."""
    scale = np.maximum.reduce([np.abs(x).astype(float) for x in [*inputs, got, expected]])
    off = np.where(where, np.abs(got.astype(float) - expected) / np.maximum(scale, 1e-30) * 2.0 ** 24, 0)
    return off.max() if off.size else 0.0


class Case:
    """One method with its parameters in both systems; parameters are mergekit's. base: True, or "first" where a source is mergekit's base,
    or False. heads_weighted: does ours go by weights, also where nothing asks for it? cut: density and gamma of its cuts; masks: our parameters that
    decide the masks; exact, loose: roundings that are allowed in double (where mergekit's DARE and DELLA are float all the same), and in float."""
    def __init__(self, ours, method=None, parameters=None, sources=None, base=True, weight=True, heads_weighted=True, cut=None, masks=None,
                 exact=4.0, loose=64.0):
        self.ours, self.sources = ours, sources or THREE
        self.name = ours if isinstance(ours, str) else next(iter(ours))
        self.method, self.parameters = method or self.name, parameters or {}
        self.base, self.weight = base, weight
        self.heads_weighted = heads_weighted or (isinstance(ours, dict) and bool(ours[self.name].get("weighted")))
        self.cut, self.masks, self.exact, self.loose = cut, masks, exact, loose

    def unknown(self, known):
        """What of the method mergegrid does not have, or None."""
        if self.name not in known:
            return self.name
        words = [] if isinstance(self.ours, str) else self.ours[self.name]
        return next((f"{self.name}.{word}" for word in words if word not in known[self.name]), None)

    def tensors(self, family, name):
        return ([family.base[name]] if self.base is True else []) + family.thetas(name, self.sources)

    def apart(self, family, name):
        """Where a cut decides otherwise in mergekit."""
        if self.cut and "importance" in self.cut:
            return at_a_threshold(self.tensors(family, name))
        return at_a_cut(family.deltas(name, self.sources), self.cut) if self.cut else np.zeros(family.base[name].shape, bool)

    def expected(self, family, name, dtype=torch.float64, masks=None, times=1):
        """mergekit's; of all weights times a power of two, and back."""
        tensors = self.tensors(family, name)
        parameters = {**({"weight": list(self.sources.values())} if self.weight else {}), **self.parameters}
        asked = []
        with drawn(masks.kept[name], asked) if masks else contextlib.nullcontext():
            out = mergekit(self.method, [x * np.float32(times) for x in tensors], 0 if self.base else None, parameters, dtype)
        if masks and dtype == torch.float64 and times == 1:
            masks.note(name, asked)
        return out / times

    def head(self, family, name):
        weights = [w if self.heads_weighted else 1 for w in self.sources.values()]
        return mergekit("linear", family.thetas(name, self.sources), None, {"weight": weights})

    def check(self, family):
        """Prints a line, and whether all is as it should be."""
        got, worst = family.merged(self.ours, self.sources), dict.fromkeys(("double", "float", "cut", "head", "formula"), 0.0)
        masks, left_out, elements, special = Masks(family, self.name, self.masks, self.sources) if self.masks else None, 0, 0, []
        for name, value in got.items():
            inputs = family.thetas(name, self.sources)

            def note(what, expected, where=True, value=value, inputs=inputs):
                worst[what] = max(worst[what], roundings(value, expected, inputs, where))
            if name not in family.base:
                note("head", self.head(family, name))
                continue
            inputs.append(family.base[name])
            if (self.name, name) in DIFFERENCES:
                special.append(name)
                note("formula", DIFFERENCES[self.name, name](self, family, name, masks))
                continue
            where = ~self.apart(family, name)
            elements, left_out = elements + value.size, left_out + np.count_nonzero(~where)
            note("double", self.expected(family, name, torch.float64, masks), where)
            note("float", self.expected(family, name, torch.float32, masks), where)
            if self.cut:
                with equals_stay_together():
                    note("cut", self.expected(family, name))
        limits = {"double": self.exact, "float": self.loose, "cut": self.exact, "head": 3, "formula": self.exact}
        fine = all(worst[what] <= limit for what, limit in limits.items())
        text = f"{worst['double']:.2g} roundings in double, {worst['float']:.2g} in float; heads {worst['head']:.2g}"
        if self.cut:
            text += f"; {100 * left_out / elements:.2g}% of the elements apart for an equal at a cut: {worst['cut']:.2g} with equals kept"
        if masks:
            errors, line = masks.compare()
            fine, text = fine and errors < 5, f"{text}; {line}"
        if special:
            text += f"; by the formula, since mergekit differs: {', '.join(special)} ({worst['formula']:.2g})"
        print(f"{'' if fine else 'DIFFERS: '}{json.dumps(self.ours)} - {self.method} {json.dumps(self.parameters)}: {text}", flush=True)
        return fine


CASES = [
    Case("linear", base=False),
    Case("average", "linear", {"weight": 1}, base=False, heads_weighted=False),
    Case({"linear": {"lambda": 1.5}}, "task_arithmetic", {"lambda": 1.5}),
    Case({"task_arithmetic": {"lambda": 0.4, "weighted": True}}, parameters={"lambda": 0.4}, heads_weighted=False),
    Case("task_arithmetic", parameters={"lambda": 0.3, "weight": 1}, heads_weighted=False),
    *[Case({"ties": {"density": density, "weighted": True, "combine": combine}}, parameters={"density": density, "normalize": combine == "mean"},
           cut={"density": density}, heads_weighted=False) for density, combine in ((0.2, "mean"), (0.5, "mean"), (0.5, "sum"), (1, "mean"))],
    Case("ties", parameters={"density": 0.2, "weight": 1}, cut={"density": 0.2}, heads_weighted=False),
    *[Case({method: {"density": density, "gamma": gamma, "weighted": True, **more}}, parameters={"density": density, "gamma": gamma},
           cut={"density": density, "gamma": gamma}, heads_weighted=method == "breadcrumbs")
      for density, gamma in ((0.9, 0.01), (0.5, 0.1), (0.95, 0.2))
      for method, more in (("breadcrumbs", {}), ("breadcrumbs_ties", {"combine": "sum"}))],
    *[Case({method: {"density": 1, "weighted": True, **more}}, heads_weighted=method == "dare_linear")
      for method, more in (("dare_linear", {}), ("dare_ties", {"combine": "sum"}))],
    *[Case({method: {"density": 0.3, "weighted": True, "rescale": "l1" if rescale else "none", **more}},
           parameters={"density": 0.3, "rescale": rescale, **theirs}, masks={"density": 0.3}, exact=64, heads_weighted=method == "dare_linear")
      for rescale in (True, False)
      for method, more, theirs in (("dare_linear", {}, {}), ("dare_ties", {"combine": "sum"}, {}), ("dare_ties", {}, {"normalize": True}))],
    Case("ram", weight=False, heads_weighted=False),
    Case({"ram": {"epsilon": 0.01}}, parameters={"epsilon": 0.01}, weight=False, heads_weighted=False),
    Case("model_stock", weight=False, heads_weighted=False),
    Case("model_stock", weight=False, heads_weighted=False, sources=HALVES),
    Case("slerp", parameters={"t": 0.375}, sources=TWO, weight=False, base="first"),
    Case("slerp", parameters={"t": 0.125}, sources={"sw-KE": 0.875, "es-ES": 0.125}, weight=False, base="first"),
    Case("multislerp", exact=64),
    Case("multislerp", parameters={"eps": 1e-30}),
    Case("multislerp", parameters={"eps": 1e-30}, sources=TWO),
    Case("multislerp", parameters={"eps": 1e-30}, sources=HALVES),
    Case("karcher", weight=False, base=False, heads_weighted=False, loose=256),
    *[Case({method: {"density": 0.4, "epsilon": 0.15, "weighted": True, "rescale": "l1" if rescale else "none", **more}},
           parameters={"density": 0.4, "epsilon": 0.15, "rescale": rescale, **theirs}, masks={"density": 0.4, "epsilon": 0.15}, exact=64,
           heads_weighted=method == "della_linear")
      for rescale in (True, False)
      for method, more, theirs in (("della_linear", {}, {}), ("della", {}, {}), ("della", {"combine": "sum"}, {"normalize": False}))],
    Case({"della": {"density": 1, "weighted": True}}, heads_weighted=False),
    *[Case({"nuslerp": {"flatten": flatten, "row_wise": row_wise, "of": "tau" if base else "theta"}}, sources=sources, base=base,
           parameters={"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise})
      for sources in (TWO, HALVES) for base in (True, False) for flatten, row_wise in ((True, False), (False, False), (False, True))],
    *[Case({"sce": {"select_topk": share}}, parameters={"select_topk": share}, weight=False, heads_weighted=False, cut={"select_topk": share})
      for share in (1, 0.5, 0.1)],
    Case("nearswap", parameters={"t": 0.001}, sources=TWO, weight=False, base="first"),
    Case({"nearswap": {"t": 0.05}}, parameters={"t": 0.05}, sources={"sw-KE": 1}, weight=False),
    *[Case("arcee_fusion", sources=sources, weight=False, base=base, cut={"importance": True}, loose=math.inf)
      for sources, base in ((TWO, "first"), ({"sw-KE": 1}, True))],
    Case({"model_stock": {"filter_wise": True}}, parameters={"filter_wise": True}, weight=False, heads_weighted=False),
    Case({"multislerp": {"of": "theta"}}, parameters={"eps": 1e-30}, base=False),
    Case({"task_arithmetic": {"lambda": 0.4, "weighted": True, "normalize": True}}, parameters={"lambda": 0.4, "normalize": True},
         heads_weighted=False),
    Case("ramplus_tl", weight=False, heads_weighted=False),
]


# ---- corners ----

def scaled(case, family, name, masks):
    """mergekit, far from its floors."""
    return case.expected(family, name, masks=masks, times=2 ** 20)


def of_deltas(formula):
    return lambda case, family, name, _: family.base[name] + formula([d.astype(float) for d in family.deltas(name, case.sources)],
                                                                     list(case.sources.values()))


def weighted_sum(deltas, weights):
    return sum(w * d for w, d in zip(weights, deltas))


def della_of_one(case, family, name, masks):
    """A row of one element: it is kept with the density."""
    weights = list(case.sources.values())
    deltas = [d.astype(float) * kept for d, kept in zip(family.deltas(name, case.sources), masks.kept[name])]
    if case.name == "della_linear":
        return family.base[name] + weighted_sum(deltas, weights)
    agree = [w * (d * weighted_sum(deltas, weights) > 0) for w, d in zip(weights, deltas)]
    total = sum(agree) if case.ours["della"].get("combine") != "sum" else np.ones(1)
    return family.base[name] + weighted_sum(deltas, agree) / np.where(total > 0, total, 1)


def unless_density_1(formula):
    return lambda case, family, name, masks: formula(case, family, name, masks) if masks else case.expected(family, name)


def with_our_cuts(case, family, name, _):
    with equals_stay_together():
        return case.expected(family, name)


DIFFERENCES = {
    # density 0.9 of one element is none for mergekit (but one in its ties); ours keeps one at least
    ("breadcrumbs", "one"): of_deltas(weighted_sum),
    ("breadcrumbs_ties", "one"): of_deltas(lambda deltas, weights: sum(
        w * d * (d * weighted_sum(deltas, weights) > 0) for w, d in zip(weights, deltas))),
    # a tensor whose L1 norm is below 1e-7 is not rescaled
    ("dare_linear", "minute"): scaled,
    ("dare_ties", "minute"): scaled,
    # sources whose tensor is shorter than 1e-5 do not count; where all are, the merge is 0
    ("karcher", "minute"): scaled,
    # a tensor that is 0 counts as orthogonal to all others: its share is sin((1 - t) 90°); ours goes straight
    ("slerp", "zero"): lambda case, family, name, _: case.expected(family, name) if "en-US" not in case.sources else sum(
        w * theta.astype(float) for w, theta in zip(case.sources.values(), family.thetas(name, case.sources))),
    # 0 / 0 is the rank of what is alone
    ("della", "one"): unless_density_1(della_of_one),
    ("della_linear", "one"): unless_density_1(della_of_one),
    ("della", "minute"): scaled,
    ("della_linear", "minute"): scaled,
    # no arc lies between opposite task vectors: from a cosine of -1 + 1e-16 mergekit takes factors of 1e7
    ("nuslerp", "opposite"): lambda case, family, name, _: (of_deltas(weighted_sum) if case.base else lambda *_: case.expected(family, name))(
        case, family, name, None),
    # where sources do not differ, or in few elements, mergekit selects nothing
    ("sce", "one"): with_our_cuts,
    ("sce", "few"): with_our_cuts,
    ("sce", "same"): with_our_cuts,
    # 1e-8 is no small part of a change of probabilities
    ("arcee_fusion", "minute"): with_our_cuts,
    # 1e-8 is no small part of the norm of a task vector of 1e-8
    ("multislerp", "minute"): scaled,
    # nothing changed: "The weighted sum of the input tensors is zero" ends mergekit's run
    ("multislerp", "frozen"): of_deltas(weighted_sum),
}


def write_corners(folder):
    """Tensors that are small, unchanged, equal, opposite, of one element, or zero."""
    random = np.random.default_rng(3)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)
    base = {"one": normal(1), "few": normal(7), "sixty": normal(60), "frozen": normal(20, 10), "half_frozen": normal(20, 10),
            "same": normal(20, 10), "opposite": np.round(8 * normal(20, 10)) / 8, "small": normal(20, 10), "minute": 1e-6 * normal(5, 5),
            "zero": normal(20, 10), "wide": normal(40, 10)}
    sources = {id: {name: value + np.float32(0.1) * normal(*value.shape) for name, value in base.items()} for id in THREE}
    step = np.sign(normal(20, 10)) / 8
    for k, tensors in enumerate(sources.values()):
        tensors["one"] = base["one"] + np.float32((0.1, 0.2, -0.05)[k])
        tensors["frozen"] = base["frozen"]
        tensors["half_frozen"] = base["half_frozen"] if k == 1 else tensors["half_frozen"]
        tensors["same"] = sources["en-US"]["same"]
        tensors["opposite"] = base["opposite"] + (step if k == 0 else -step if k == 2 else normal(20, 10))
        tensors["small"] = base["small"] + np.float32(1e-6) * normal(20, 10)
        tensors["minute"] = base["minute"] + np.float32(1e-8) * normal(5, 5)
        tensors["zero"] = 0 * base["zero"] if k == 0 else tensors["zero"]
        tensors["wide"] = normal(40, 10)
    for name, tensors in {"base": base, **sources}.items():
        os.makedirs(f"{folder}/{name}")
        save_file({key: np.ascontiguousarray(value, np.float32) for key, value in tensors.items()}, f"{folder}/{name}/model.safetensors")
        with open(f"{folder}/{name}/config.json", "w", encoding="utf-8") as file:
            json.dump({"model_type": "test"}, file)


def known_methods():
    """Names of methods, and of their parameters."""
    known, method = {}, None
    for line in mergegrid("--help", "methods").splitlines():
        if found := re.match(r"  (\w+)$", line):
            known[method := found.group(1)] = set()
        elif found := re.match(r"    (\w+) ", line):
            known[method].add(found.group(1))
    return known


def main():
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    known, failed = known_methods(), 0
    with tempfile.TemporaryDirectory() as folder:
        write_corners(f"{folder}/corners")
        for title, base, pattern in (("the demonstration", DEMO / "xlm-roberta-emoji", DEMO / "xlm-roberta-emoji_k_{locale}"),
                                     ("corners", f"{folder}/corners/base", f"{folder}/corners/{{locale}}")):
            family = Family(f"{folder}/merges of {title}", base, pattern)
            print(f"---- {title}", flush=True)
            for case in CASES:
                if case.unknown(known) is None and (not wanted or case.name in wanted):
                    failed += not case.check(family)
    missing = sorted({case.unknown(known) for case in CASES} - {None})
    if missing:
        print(f"not in this mergegrid: {', '.join(missing)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
