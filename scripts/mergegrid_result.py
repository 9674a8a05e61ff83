"""A result of mergegrid as pandas data frames.

    from mergegrid_result import Result
    with Result("result.h5") as result:
        result.stages                       # what it holds: compatibility, nxn, grid, microscope
        result.compatibility("cosine")      # [source, source]
        result.cells()                      # one row a cell

Every call reads what it returns and no more, so a large result opens at once. What cannot be read is a ResultError, whose text says
which file and why; a table of a stage that the result lacks is a MissingStage. docs/result-schema.md says what the numbers mean.

Debian packages: python3-h5py python3-pandas.
"""
import os

import h5py
import numpy as np
import pandas

FORMAT, SCHEMA = "mergegrid result", 1
STAGES = ("compatibility", "nxn", "grid", "microscope")

CELL_COLUMNS = ("key", "recipe", "locale", "method", "parameters", "similarity_type", "num_languages", "num_sources", "include_target",
                "preset", "head", "phase", "seed", "status", "error", "note", "sources", "terms", "accuracy", "macro_f1", "select_accuracy",
                "best_source", "best_zero_shot", "own", "merging_effect", "delta_vs_similarity", "matched", "prediction_row", "same_as")
METHOD_COLUMNS = ("method", "parameters", "cells", "failed", "accuracy", "pairs", "delta", "delta_low", "delta_high", "p", "p_holm",
                  "wins", "losses", "draws")
BEST_COLUMNS = ("locale", "cell", "select_accuracy", "accuracy", "delta_vs_best_source", "low", "high", "p")
# The notebook's tables and the order of their columns.
MICROSCOPE_COLUMNS = {
    "parameter_deltas": ("parameter", "layer", "delta_l2", "delta_mean_abs", "cosine_with_reference", "reference_norm", "candidate_norm", "model"),
    "layer_deltas": ("layer", "delta_l2_sum", "delta_l2_mean", "delta_mean_abs", "cosine_mean", "reference_norm_mean",
                     "candidate_norm_mean", "model"),
    "attentions": ("layer", "head", "mean_prob", "entropy", "cls_focus", "diagonal_focus", "model"),
    "hidden_states": ("layer", "mean_token_norm", "max_token_norm", "std_token_norm", "sequence_mean_norm", "model"),
    "logits": ("logit_mean", "logit_std", "confidence_mean", "confidence_std", "entropy_mean", "model"),
    "setups": ("model", "kind", "notes", "path", "exists", "error", "mode", "target_lang", "num_languages", "preweight", "base_model", "sources",
               "cell"),
}
MATRICES = {"cosine": "task_vector_cosine", "encoder": "task_vector_cosine_encoder", "layers": "task_vector_cosine_layers",
            "cka": "cka", "cka_unbiased": "cka_unbiased"}
EVALUATIONS = {"accuracy": "nxn/accuracy", "macro_f1": "nxn/macro_f1", "select": "nxn_select/accuracy",
               "select_macro_f1": "nxn_select/macro_f1"}


class ResultError(Exception):
    """The file cannot be read as a result; the text names it and says why."""


class MissingStage(ResultError):
    """The result lacks the stage, or the part of it, that was asked for."""


def _strings(dataset):
    """The dataset's values; strings as str."""
    return dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _state(path):
    """The first line of RESULT.state and its other lines by their first word. The lock beside it is left alone: to try it is to hold
    it for a moment, in which a run that starts would be refused."""
    try:
        with open(f"{path}.state", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return "", {}
    pairs = (line.partition(" ") for line in lines[1:])
    return (lines[0].strip() if lines else ""), {key: value for key, _, value in pairs}


def _refuse_unfinished(path):
    state, values = _state(path)
    who = ", ".join(f"{key} {values[key]}" for key in ("attempt", "host", "pid", "progress") if values.get(key))
    if state == "running":
        raise ResultError(f"{path}: is still being written by a run ({who or 'its .state says running'}); if that run is dead, "
                          "`mergegrid run` with the same configuration continues it")
    if os.path.exists(path):
        return
    if state or os.path.isdir(f"{path}.journal"):
        raise ResultError(f"{path}: is not finished (its last run: {state or 'unknown'}"
                          f"{', ' + values['message'] if values.get('message') else ''}); "
                          "`mergegrid run` with the same configuration continues it")
    raise ResultError(f"{path}: no such file")


def _checked(path):
    """The open HDF5 file, held to being a result of this schema."""
    _refuse_unfinished(path)
    if os.path.isdir(path):
        raise ResultError(f"{path}: is a directory, not a mergegrid result")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = error.strerror if isinstance(error, PermissionError) else "no HDF5 file, or one that was cut off"
        raise ResultError(f"{path}: not a mergegrid result ({reason})") from error
    try:
        if _text(file.attrs.get("format")) != FORMAT:
            raise ResultError(f"{path}: not a mergegrid result (an HDF5 file whose root has no attribute format '{FORMAT}')")
        version = file.attrs.get("schema_version")
        if version != SCHEMA:
            raise ResultError(f"{path}: has schema version {version}; this reads version {SCHEMA}")
    except BaseException:
        file.close()
        raise
    return file


class Result:
    """The result at `path`, open until close() or the end of a `with`. `file` is the h5py file, for what no method returns."""

    def __init__(self, path):
        self.path = os.fspath(path)
        self.file = _checked(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()

    @property
    def stages(self):
        """Names of the stages that the result holds, in the program's order."""
        return [stage for stage in STAGES if stage in self.file]

    # ---- reading ----

    def _need(self, stage):
        if stage not in self.file:
            held = ", ".join(self.stages) or "none"
            raise MissingStage(f"{self.path}: this result has no stage {stage} (it has: {held})")

    def _dataset(self, name, why=None):
        if name not in self.file:
            raise MissingStage(f"{self.path}: this result has no /{name}{f': {why}' if why else ''}")
        try:
            return _strings(self.file[name])
        except (OSError, UnicodeDecodeError) as error:
            raise ResultError(f"{self.path}: /{name} is damaged: {error}") from error

    def _group(self, name):
        if not isinstance(self.file.get(name), h5py.Group):
            raise MissingStage(f"{self.path}: this result has no /{name}")
        return self.file[name]

    def _table(self, group, order, columns=None):
        """A group whose datasets are columns, the known ones first, in their order."""
        held = list(self._group(group))
        names = [name for name in order if name in held] + [name for name in held if name not in order]
        if columns is not None:
            for name in columns:
                if name not in held:
                    raise MissingStage(f"{self.path}: /{group} has no column {name}; there are {', '.join(names)}")
            names = list(columns)
        return pandas.DataFrame({name: self._dataset(f"{group}/{name}") for name in names}, columns=names)

    # ---- the family ----

    def sources(self):
        """Columns locale, path; the index is the source's id, in the order of every source axis."""
        frame = pandas.DataFrame({name: self._dataset(f"sources/{name}") for name in ("locale", "path")})
        return frame.set_index(pandas.Index(self._dataset("sources/id"), name="source"))

    def targets(self):
        """Locales that sources are evaluated on, a list; with the stage nxn."""
        self._need("nxn")
        return list(self._dataset("targets"))

    def labels(self):
        """The classes' names by index, a list; empty where the checkpoints name none."""
        return list(self._dataset("labels"))

    def tensors(self):
        """Columns shape (a tuple), layer, selected, source_only; the index is the tensor's name."""
        shapes = [tuple(row[:count]) for row, count in zip(self._dataset("tensors/shape").tolist(), self._dataset("tensors/ndim"))]
        frame = pandas.DataFrame({"shape": shapes, **{name: self._dataset(f"tensors/{name}") for name in ("layer", "selected", "source_only")}})
        return frame.set_index(pandas.Index(self._dataset("tensors/name"), name="tensor"))

    # ---- compatibility ----

    def compatibility(self, kind="cosine", layer=None):
        """A matrix of pairs of sources, ids as index and columns.

        cosine: of task vectors, over all selected tensors; encoder: over those that have a layer; layers: over the layer named `layer`;
        cka, cka_unbiased: of the hidden states numbered `layer`, the last that the result has by default.
        """
        if kind not in MATRICES:
            raise ValueError(f"no matrix {kind!r}; there are {', '.join(MATRICES)}")
        self._need("compatibility")
        name = f"compatibility/{MATRICES[kind]}"
        if name not in self.file:
            raise MissingStage(f"{self.path}: {self._why_no_matrix(kind)}")
        dataset = self.file[name]
        if dataset.ndim == 3:
            values = dataset[self._plane(kind, layer)]
        elif layer is not None:
            raise ValueError(f"the matrix {kind} has no layers")
        else:
            values = dataset[()]
        return self._pairs(values)

    def layers(self, kind="layers"):
        """What `compatibility(kind, layer)` has: names of layers, or numbers of hidden states for cka. A list, maybe empty."""
        self._need("compatibility")
        name = f"compatibility/{MATRICES[kind]}"
        if name not in self.file or self.file[name].ndim != 3:
            return []
        return list(self._dataset("compatibility/layers" if kind == "layers" else "compatibility/cka_layers"))

    def _plane(self, kind, layer):
        there = self.layers(kind)
        if layer is None and kind != "layers":
            return len(there) - 1
        if layer not in there:
            raise MissingStage(f"{self.path}: {kind} has no layer {layer!r}; there are {', '.join(map(str, there)) or 'none'}")
        return there.index(layer)

    def _why_no_matrix(self, kind):
        if kind.startswith("cka"):
            return "this result has no CKA: its run did not list cka in compatibility.metrics"
        if kind == "encoder" or not len(self.file["compatibility/layers"]):
            return "no selected tensor belongs to a layer, so there are no cosines of the encoder or its layers"
        return "this result has no cosines by layer: its run kept Grams of the total only (gram: total)"

    def _pairs(self, values):
        ids = self._dataset("compatibility/source")
        return pandas.DataFrame(values, pandas.Index(ids, name="source"), pandas.Index(ids, name="source_column"))

    # ---- nxn ----

    def nxn(self, kind="accuracy"):
        """Sources (index) on targets (columns): accuracy, macro_f1 on the partition; select, select_macro_f1 on that of nxn.select. NaN
        of a source that has failed on a target, as failures() tells."""
        if kind not in EVALUATIONS:
            raise ValueError(f"no matrix {kind!r}; there are {', '.join(EVALUATIONS)}")
        self._need("nxn")
        values = self._dataset(EVALUATIONS[kind])
        return pandas.DataFrame(values, pandas.Index(self._dataset("nxn/source"), name="source"),
                                pandas.Index(self._dataset("nxn/target"), name="target"))

    def failures(self):
        """One row a source and a target that it has failed on: source, target, error. Its accuracies there are NaN."""
        self._need("nxn")
        columns = ("source", "target", "error")
        if "failures" not in self.file["nxn"]:  # an earlier version's, which refused such sources
            return pandas.DataFrame({name: pandas.Series(dtype=object) for name in columns})
        return pandas.DataFrame({name: self._dataset(f"nxn/failures/{name}") for name in columns})

    def partition(self, stage="nxn"):
        """Whose texts the numbers of `nxn`, `nxn_select` or `grid` are of."""
        if stage not in self.file:
            raise MissingStage(f"{self.path}: this result has no {stage}")
        return _text(self.file[stage].attrs["partition"])

    def texts(self, target):
        """A target's texts in the order of its file: columns partition, label (index into labels()); the index is the text's id."""
        self._need("nxn")
        if target not in self.file["texts"]:
            raise MissingStage(f"{self.path}: no target {target!r}; there are {', '.join(self.file['texts'])}")
        frame = pandas.DataFrame({name: self._dataset(f"texts/{target}/{name}") for name in ("partition", "label")})
        return frame.set_index(pandas.Index(self._dataset(f"texts/{target}/id"), name="text"))

    # ---- grid ----

    def cells(self, columns=None):
        """One row a cell, in the grid's order: the columns of docs/result-schema.md, then a column for each swept parameter
        (`ties.density`). `columns`: these alone, which is quicker."""
        self._need("grid")
        return self._table("grid/cells", CELL_COLUMNS, columns)

    def methods(self):
        """One row a method setting: method, parameters, cells, failed, accuracy, pairs, delta, delta_low, delta_high, p, p_holm, wins,
        losses, draws. delta is the difference to the method similarity."""
        self._need("grid")
        return self._table("grid/methods", METHOD_COLUMNS)

    def best(self):
        """One row a target that has a completed cell: locale, cell (a row of cells()), select_accuracy, accuracy, delta_vs_best_source,
        low, high, p."""
        self._need("grid")
        return self._table("grid/best", BEST_COLUMNS)

    def swept(self):
        """Parameters that differ between cells, each a column of cells(). A list."""
        self._need("grid")
        return list(self._dataset("grid/swept"))

    def weights(self):
        """Weights of sources (columns) in cells (index: keys): 0 for a source that was not selected."""
        return self._by_cell("grid/weights")

    def selected(self):
        """Which sources (columns) a cell (index: keys) is made from."""
        return self._by_cell("grid/selected")

    def _by_cell(self, name):
        self._need("grid")
        return pandas.DataFrame(self._dataset(name), pandas.Index(self._dataset("grid/cell"), name="cell"),
                                pandas.Index(self._dataset("grid/source"), name="source"))

    def similarity(self, name):
        """A similarity matrix that cells went by, labels as index and columns."""
        self._need("grid")
        held = list(self.file["grid/similarity"])
        if name not in held:
            raise MissingStage(f"{self.path}: no similarity {name!r}; there are {', '.join(held) or 'none'}")
        labels = self._dataset(f"grid/similarity/{name}/label")
        return pandas.DataFrame(self._dataset(f"grid/similarity/{name}/value"), labels, labels)

    # ---- predictions ----

    def predictions(self, target):
        """What a target's cells say of its texts (index: ids): columns partition, label, then the key of each cell that has a row;
        classes as indices into labels(), -1 where a text was not evaluated."""
        self._need("grid")
        frame = self.texts(target)
        cells = self.cells(["key", "locale", "prediction_row"])
        mine = cells[(cells.locale == target) & (cells.prediction_row >= 0)]
        rows = self._dataset(f"grid/predictions/{target}")
        said = pandas.DataFrame(rows[mine.prediction_row].T, frame.index, mine.key.to_numpy())
        return pandas.concat([frame, said], axis=1)

    def source_predictions(self, target, select=False):
        """What sources say of a target's texts (index: ids) of the partition, or of that of nxn.select: columns label, then sources;
        -1 where a source's logits are not finite (failures)."""
        stage = "nxn_select" if select else "nxn"
        texts = self.texts(target)
        mine = texts[texts.partition == self.partition(stage)]
        if select and self._dataset("nxn_select/stands_in")[self.targets().index(target)]:
            mine = texts[texts.partition == self.partition()]
        said = pandas.DataFrame(self._dataset(f"{stage}/predictions/{target}").T, mine.index, self._dataset(f"{stage}/source"))
        return pandas.concat([mine[["label"]], said], axis=1)

    # ---- microscope ----

    def microscope(self, table):
        """A table of the stage microscope, by the notebook's names and with its columns; `model` names the setup.

        parameter_deltas: parameter, layer, delta_l2, delta_mean_abs, cosine_with_reference, reference_norm, candidate_norm
        layer_deltas: layer, delta_l2_sum, delta_l2_mean, delta_mean_abs, cosine_mean, reference_norm_mean, candidate_norm_mean
        attentions: layer, head, mean_prob, entropy, cls_focus, diagonal_focus
        hidden_states: layer, mean_token_norm, max_token_norm, std_token_norm, sequence_mean_norm
        logits: logit_mean, logit_std, confidence_mean, confidence_std, entropy_mean
        setups: kind, notes, path, exists, error (why it was skipped or failed), mode, target_lang, num_languages, preweight, base_model,
            sources, cell
        """
        if table not in MICROSCOPE_COLUMNS:
            raise ValueError(f"no table {table!r}; there are {', '.join(MICROSCOPE_COLUMNS)}")
        self._need("microscope")
        if table not in self.file["microscope"]:
            raise MissingStage(f"{self.path}: this result's microscope has no {table}")
        return self._table(f"microscope/{table}", MICROSCOPE_COLUMNS[table])

    def microscope_facts(self):
        """Attributes of the microscope: reference, probes, probe_source, padding; no_signals, no_cells where that is so. A dict."""
        self._need("microscope")
        return {name: _text(value.item() if isinstance(value, np.generic) else value) for name, value in self.file["microscope"].attrs.items()}

    def cell_deltas(self, kind="delta_l2"):
        """Cells (index: keys) by parameters (columns) against the microscope's reference: delta_l2, cosine_with_reference, candidate_norm.
        NaN where a parameter of a cell is no linear merge."""
        facts, name = self.microscope_facts(), "microscope/cell_deltas"
        if name not in self.file:
            raise MissingStage(f"{self.path}: this result has no cell_deltas: {facts.get('no_cells', 'it was made without')}")
        if kind not in ("delta_l2", "cosine_with_reference", "candidate_norm"):
            raise ValueError(f"no array {kind!r}; there are delta_l2, cosine_with_reference, candidate_norm")
        return pandas.DataFrame(self._dataset(f"{name}/{kind}"), pandas.Index(self._dataset(f"{name}/cell"), name="cell"),
                                pandas.Index(self._dataset(f"{name}/parameter"), name="parameter"))

    # ---- provenance ----

    def provenance(self):
        """Attributes of the run (version, started_utc, wall_seconds, backend, …) and the resolved configuration as `config`: a dict."""
        group = self._group("provenance")
        facts = {name: _text(value.item() if isinstance(value, np.generic) else value) for name, value in group.attrs.items()
                 if name not in ("DIMENSION_LIST", "REFERENCE_LIST", "checksum")}
        return {**facts, "config": str(self._dataset("provenance/config"))}

    def inputs(self):
        """What the result is computed from: columns name, value."""
        return self._records("provenance/inputs")

    def timings(self):
        """Wall-clock time by part of the run: columns name, seconds. grid_merge and grid_evaluate are sums over the ranks."""
        return self._records("provenance/timings")

    def ranks(self):
        """One row a rank: rank, host, units, busy_seconds (of Grams and cells), read_seconds, bytes_read, peak_bytes."""
        return self._records("provenance/ranks")

    def _records(self, name):
        rows = self._dataset(name)
        return pandas.DataFrame({field: [_text(value) for value in rows[field].tolist()] if rows.dtype[field].kind in "SO" else rows[field]
                                 for field in rows.dtype.names})
