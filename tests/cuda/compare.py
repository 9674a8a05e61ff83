"""Holds a result computed on a device to one computed on the processors: compare.py PROCESSORS.h5 DEVICE.h5

Grams and what comes of them bit for bit; numbers of forward passes within the tolerances below, predictions equal but where two
classes are as good as equal.
"""
import sys

import h5py
import numpy as np

LOGITS, CKA, STATES, TIE = 2e-5, 1e-5, 1e-4, 1e-4  # relative to the largest number of their kind


def off(ours, theirs):
    """The largest difference, relative to the largest number; inf where one is finite and the other is not."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if (np.isfinite(ours) != np.isfinite(theirs)).any():
        return np.inf
    return np.nanmax(np.abs(ours - theirs), initial=0) / max(np.nanmax(np.abs(theirs), initial=0), 1e-30)


def tied(logits, left, right):
    """Rows whose predictions differ although their logits tell the two classes apart."""
    rows = np.argwhere(left != right)
    return [tuple(at) for at in rows if abs(logits[tuple(at)][left[tuple(at)]] - logits[tuple(at)][right[tuple(at)]]) > TIE * np.abs(logits).max()]


def numbers(a, b):
    """(what, how far off, bound) of everything that both results have."""
    for name in ("source_dot", "base_dot", "base_norm2"):
        if f"compatibility/gram/{name}" in a:
            same = a[f"compatibility/gram/{name}"][()].tobytes() == b[f"compatibility/gram/{name}"][()].tobytes()
            yield f"gram/{name}, bit for bit", 0 if same else np.inf, 0
    for name in ("cka", "cka_unbiased"):
        if f"compatibility/{name}" in a:
            yield name, off(b[f"compatibility/{name}"][()], a[f"compatibility/{name}"][()]), CKA
    for target in a.get("nxn/predictions", {}):
        left, right = a[f"nxn/predictions/{target}"][()], b[f"nxn/predictions/{target}"][()]
        if f"nxn/logits/{target}" in a:
            logits = a[f"nxn/logits/{target}"][()]
            yield f"nxn/logits/{target}", off(b[f"nxn/logits/{target}"][()], logits), LOGITS
            yield f"nxn/predictions/{target}, differing", len(tied(logits, left, right)), 0
        else:
            yield f"nxn/predictions/{target}, differing", np.mean(left != right), 1e-3
    for target in a.get("grid/predictions", {}):
        yield f"grid/predictions/{target}, differing", np.mean(a[f"grid/predictions/{target}"][()] != b[f"grid/predictions/{target}"][()]), 1e-3
    if "grid/cells" in a:
        for column in ("key", "status"):
            yield f"grid/cells/{column}, differing", int((a[f"grid/cells/{column}"][()] != b[f"grid/cells/{column}"][()]).sum()), 0
    for table in ("attentions", "hidden_states", "logits"):
        for column, values in a.get(f"microscope/{table}", {}).items():
            if values.dtype.kind == "f":
                yield f"microscope/{table}/{column}", off(b[f"microscope/{table}/{column}"][()], values[()]), STATES


def compare(host, device, show=print):
    """The names of what is out of bounds."""
    wrong = []
    with h5py.File(host) as a, h5py.File(device) as b:
        show(f"processors: {a['provenance'].attrs['backend']}\ndevice: {b['provenance'].attrs['backend']}")
        for what, value, bound in numbers(a, b):
            show(f"{what}: {value:.3g} (at most {bound:g})")
            if not value <= bound:
                wrong.append(what)
    return wrong


if __name__ == "__main__":
    out = compare(sys.argv[1], sys.argv[2])
    print(f"out of bounds: {', '.join(out)}" if out else "all within bounds")
    sys.exit(1 if out else 0)
