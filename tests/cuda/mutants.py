"""A test of the tests: bugs planted one at a time in the CUDA backend, each of which test_device, test_statistics or
test_merge_pass must notice.

    mutants.py BUILD [--every N | NAME ...]      exit 0: all (or each N-th, or the named ones) were caught; names what was not
"""
import concurrent.futures
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
CUDA, ENCODER, GRAM, MERGE = "src/ops/cuda/", "src/encoder/", "src/gram/", "src/merge/"
# Ways to run the test: what is done early in one is done late in another; pieces of memory apart, or side by side.
WAYS = [{"MG_EMU_ORDER": "lazy", "MERGEGRID_DEVICE_ARENA": "apart"}, {"MG_EMU_ORDER": "others"},
        {"MG_EMU_ORDER": "random", "MERGEGRID_DEVICE_ARENA": "apart", "MG_EMU_SEED": "3"}]

# name: file, what is there, what is put in its place
STATISTICS = {
    "a bin's counts not yet zero when it is counted in": (CUDA + "census.cu", "none = 0;\n  __syncthreads();\n  for (uint32_t p = blockIdx.x; p < m.pieces; p += blocks) {\n    const mg_device_piece piece = m.piece[p];\n    for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {\n      const uint32_t bits = magnitude_of(m, piece, k), at", "none = 0;\n  for (uint32_t p = blockIdx.x; p < m.pieces; p += blocks) {\n    const mg_device_piece piece = m.piece[p];\n    for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {\n      const uint32_t bits = magnitude_of(m, piece, k), at"),
    "counts taken before all have counted": (CUDA + "census.cu", "  if (zeros > 0) atomicAdd(&none, zeros);\n  __syncthreads();\n  for", "  if (zeros > 0) atomicAdd(&none, zeros);\n  for"),
    "a count in shared memory that is not atomic": (CUDA + "census.cu", "atomicAdd(&own[at], 1u);", "own[at]++;"),
    "zeros added up by no one in particular": (CUDA + "census.cu", "if (zeros > 0) atomicAdd(&none, zeros);", "none += zeros;"),
    "blocks' counts that are not added atomically": (CUDA + "census.cu", "atomicAdd((unsigned long long *)bin, (unsigned long long)count);", "*bin += count;"),
    "the window of bins one too far": (CUDA + "census.cu", "add_to(&m.bins[WINDOW_FIRST + k], own[k]);", "add_to(&m.bins[WINDOW_FIRST + k + 1], own[k]);"),
    "a bin beyond the window": (CUDA + "census.cu", "else if (at < WINDOW)", "else if (at <= WINDOW)"),
    "every block's pieces after the first left out": (CUDA + "census.cu", "p < m.pieces; p += blocks", "p < blocks; p += blocks"),
    "lower halves of one bin in another's": (CUDA + "census.cu", "(size_t)index * MG_CENSUS_LOWER + (bits & 0xFFFFu)", "(size_t)index * MG_CENSUS_UPPER + (bits & 0xFFFFu)"),
    "words of a block's elements, not a tensor's": (CUDA + "census.cu", "word_of(m.stream, piece.element + k)", "word_of(m.stream, piece.from + k)"),
    "what it is relative to left out": (CUDA + "census.cu", "if (m.other != NULL) value -=", "if (m.other == m.tau) value -="),
    "counts fetched before they are there": (MERGE + "device_census.c", "MG_TRY(ops->finish(queue), done);\n    mg_census_add_counts", "mg_census_add_counts"),
    "counts on top of those of the turn before": (MERGE + "device_census.c", "MG_TRY(ops->zero(queue, c->bins, bins * sizeof *c->bins), done);", ""),
    "ranges counted from the first one's place": (MERGE + "device_census.c", ".from = r->offset + (size_t)at,", ".from = (size_t)at,"),
    "keys sorted before all are there": (CUDA + "thin.cu", "  __syncthreads();\n  sort(keys", "  sort(keys"),
    "keys exchanged while others are at them": (CUDA + "thin.cu", "    keys[high] = key;\n  }\n  __syncthreads();", "    keys[high] = key;\n  }"),
    "the rows of a piece sorted as one": (CUDA + "thin.cu", "(uint64_t)row << ROW_BIT | ", ""),
    "ranks that go on from row to row": (CUDA + "thin.cu", "(double)(k % m.row)", "(double)k"),
    "a value without its sign": (CUDA + "thin.cu", " | (uint32_t)key << 31", ""),
    "words of ranks, not of elements": (CUDA + "thin.cu", "word_of(stream, piece.element + place)", "word_of(stream, piece.element + k)"),
    "a probability that is rounded": (CUDA + "thin.cu", "(float)((double)value / probability)", "value / (float)probability"),
    "what is thinned out relative to nothing": (CUDA + "thin.cu", "m.other != NULL ? tau[k] - m.other[piece.from + k] : tau[k]", "tau[k]"),
    "a last merge of runs left out": (CUDA + "thin.cu", "1u << log < count; log++", "2u << log < count; log++"),
    "sums not yet zero when they are added to": (CUDA + "norms.cu", "own[k] = 0;\n  __syncthreads();", "own[k] = 0;"),
    "sums taken before all have added": (CUDA + "norms.cu", "  __syncthreads();\n  for (uint32_t k = threadIdx.x; k < 2 * MG_L1_BINS; k += CREW) add_to", "  for (uint32_t k = threadIdx.x; k < 2 * MG_L1_BINS; k += CREW) add_to"),
    "sums that are not added atomically": (CUDA + "norms.cu", "if (size > 0) atomicAdd((unsigned long long *)bin, (unsigned long long)size);", "if (size > 0) *bin += size;"),
    "subnormal numbers taken for usual ones": (CUDA + "norms.cu", "(bin > 0 ? 1u << 23 : 0u)", "(1u << 23)"),
    "NaN taken for infinite": (CUDA + "norms.cu", "fraction != 0 ? (uint64_t)1 << 32 : (uint64_t)1", "(uint64_t)1"),
    "the part added to the whole": (CUDA + "norms.cu", "own[MG_L1_BINS + part.bin]", "own[part.bin]"),
    "what stays by words of a block's elements": (CUDA + "norms.cu", "word_of(m.stream, piece.element + k)", "word_of(m.stream, piece.from + k)"),
    "a packed part sought by piece's place": (CUDA + "norms.cu", "m.packed[(size_t)p * MG_PIECE_ELEMENTS + k]", "m.packed[piece.from + k]"),
    "what is at the threshold taken for below": (CUDA + "norms.cu", "fabs((double)value) < m.threshold", "fabs((double)value) <= m.threshold"),
    "norms relative to nothing": (CUDA + "norms.cu", "if (m.other != NULL) value -=", "if (m.other == m.tau) value -="),
    "norms fetched before they are there": (MERGE + "device_norms.c", "MG_TRY(ops->finish(queue), done);\n  mg_l1_add_counts(all", "mg_l1_add_counts(all"),
    "norms on top of those before": (MERGE + "device_norms.c", "if (*able) MG_TRY(s->device->ops->zero(queue, s->counter->bins, 2 * MG_L1_BINS * sizeof(uint64_t)), done);", ""),
    "the first rows added up again and again": (MERGE + "device_norms.c", "what->piece += most;", ""),
    "the norm of all taken for the part's": (MERGE + "device_norms.c", "mg_l1_add_counts(part, fetched + MG_L1_BINS)", "mg_l1_add_counts(part, fetched)"),
    "room for pieces of any kind, not of whole rows": (MERGE + "device_census.c", "return 2 * most;", "return most;"),
    "neighbours' sums in each other's table": (MERGE + "l1.c", "own[k % TABLES][bin] +=", "own[k % TABLES][bin | (uint32_t)(k == 3)] +="),
    "a sum over a block without a barrier": (CUDA + "cka.cu", "part[threadIdx.x] += part[threadIdx.x + half];\n    __syncthreads();", "part[threadIdx.x] += part[threadIdx.x + half];"),
    "a sum over a block that is not yet written": (CUDA + "cka.cu", "part[threadIdx.x] = value;\n  __syncthreads();", "part[threadIdx.x] = value;"),
    "a row's sum with its diagonal": (CUDA + "cka.cu", "if (j != row) mine +=", "if (j >= 0) mine +="),
    "a Gram matrix centred by rows alone": (CUDA + "cka.cu", "(sums[i] + sums[j]) * each", "(sums[i] + sums[i]) * each"),
    "features less the mean of what is left": (CUDA + "cka.cu", "for (int t = 0; t < rows; t++) total +=", "for (int t = 1; t < rows; t++) total +="),
    "a slice too few": (CUDA + "cka.cu", "static int slices_of(int64_t n) { return (int)mg_blocks(n, SLICE); }", "static int slices_of(int64_t n) { return (int)(n / SLICE) > 0 ? (int)(n / SLICE) : 1; }"),
    "slices of one product in another's": (CUDA + "cka.cu", "parts[(size_t)blockIdx.y * (size_t)slices + blockIdx.x] = total;", "parts[(size_t)blockIdx.x * (size_t)slices + blockIdx.y] = total;"),
    "products of features, not of texts": (CUDA + "open.c", "cublasDgemm(q->blas, CUBLAS_OP_T, CUBLAS_OP_N, rows, rows, n, &one, x, n, x, n,", "cublasDgemm(q->blas, CUBLAS_OP_N, CUBLAS_OP_T, rows, rows, n, &one, x, n, x, n,"),
    "answers of CKA taken before they are there": (GRAM + "cka_lane.c", "MG_TRY(ops->finish(l->queue), done);\n", ""),
    "the U-centred matrix taken for the centred one": (GRAM + "cka_lane.c", "l->grams + kind * entries", "l->grams + (kinds - 1 - kind) * entries"),
    "the column's matrices over a row's": (GRAM + "cka.c", "MG_TRY(fill_slot(w, j, w->block), done);", "MG_TRY(fill_slot(w, j, w->block - 1), done);"),
}
PASSES = {
    "ranges read together whose places are apart": (MERGE + "device_store.c", "b->count == BATCH || at != b->at + b->count", "b->count == BATCH"),
    "what is left of a block not sent": (MERGE + "device_store.c", "  MG_TRY(send(s, queue, to, &b), cleanup);\n", ""),
    "a merge that is relative to the base whatever it should be": (MERGE + "device.c", "m->other = mg_device_relative(p->store, prepared->base);", "m->other = NULL;"),
    "rows ranked as they are and not as they are relative": (MERGE + "device.c", "to->other = j->merge.other;", "to->other = NULL;"),
    "one random head for merges of any seed": (MERGE + "device.c", "return p->with_head && r->recipe->seed == p->seed;", "return p->with_head;"),
    "a random head that is not drawn again": (MERGE + "device_head.c", "*able = s->head_drawn && s->head_seed == seed;", "*able = s->head_drawn;"),
    "a random head where the blocks begin": (MERGE + "device_head.c", "(uintptr_t)s->head - s->head_first * sizeof(float)", "(uintptr_t)s->head"),
    "heads counted as they are": (MERGE + "magnitude.c", "values->other = random ? MG_BASE_RANDOM :", "values->other = random ? MG_BASE_FAMILY :"),
    "pieces thinned out that are others' to merge": (MERGE + "device.c", "thinning.piece += at, merge.piece += at;", "merge.piece += at;"),
    "sources thinned out in one another's place": (MERGE + "device.c", "mg_device_thin_most((size_t)j->thinning.sources, j->thinning.row)", "mg_device_thin_most(1, j->thinning.row)"),
    "votes counted again of what the last job left": (MERGE + "device.c", "  MG_TRY(queue_job(p, j), done);\n  MG_TRY(ops->download", "  MG_TRY(ops->merge(p->queue, &j->merge), done);\n  MG_TRY(ops->download"),
    "rows cut in two by pieces": (MERGE + "device.c", "tell_pieces(p, first, last, MG_PIECE_ELEMENTS / row * row)", "tell_pieces(p, first, last, MG_PIECE_ELEMENTS - 1)"),
}
BUGS = {**STATISTICS, **PASSES,
    "a norm of half a row": (CUDA + "encoder.cu", "lanes_sum(total, MG_WARP)", "lanes_sum(total, MG_WARP / 2)"),
    "all warps at one row": (CUDA + "encoder.cu", "blockIdx.x * MG_WARPS + threadIdx.x / MG_WARP", "blockIdx.x * MG_WARPS"),
    "a norm without its mean": (CUDA + "encoder.cu", "x[d] = (x[d] - mean) * inverse", "x[d] = x[d] * inverse"),
    "words and positions exchanged": (CUDA + "encoder.cu", "from.words + (size_t)from.word[r]", "from.words + (size_t)from.position[r]"),
    "keys used before they are loaded": (CUDA + "encoder.cu", "a.key_stride, key_bias);\n    __syncthreads();\n    const int count", "a.key_stride, key_bias);\n    const int count"),
    "keys overwritten while others use them": (CUDA + "encoder.cu", "    __syncthreads(); /* the block is loaded anew */\n", ""),
    "probabilities used before they are written": (CUDA + "encoder.cu", "key_bias + hidden);\n    __syncthreads();", "key_bias + hidden);"),
    "values overwritten by the next keys": (CUDA + "encoder.cu", "block[k][member + CREW * j], mix[j]);\n    __syncthreads();", "block[k][member + CREW * j], mix[j]);"),
    "a key too many of those that every fourth thread has": (CUDA + "encoder.cu", "- member + CREW - 1) / CREW", "- member + CREW) / CREW"),
    "keys taken for values": (CUDA + "encoder.cu", "(size_t)a.key_stride + hidden, a.key_stride", "(size_t)a.key_stride, a.key_stride"),
    "scores of long texts not computed again": (CUDA + "encoder.cu", "if (keys > KEYS) {", "if (keys > 2 * KEYS) {"),
    "the mean of a text and its neighbour": (CUDA + "encoder.cu", "for (int r = begin; r < end; r++)", "for (int r = begin; r <= end && r < begin + 99; r++)"),
    "a last block that is not launched": (CUDA + "launch.h", "(count + each - 1) / each", "count / each"),
    "a slab used before it is loaded": (CUDA + "gram.cu", "__syncthreads_or(load_slabs(p, first + slab, some, &s))", "load_slabs(p, first + slab, some, &s)"),
    "a slab overwritten while others use it": (CUDA + "gram.cu", "    __syncthreads();\n    if (chains) chained", "    if (chains) chained"),
    "all runs read from the first one": (CUDA + "gram.cu", "MG_TILE + first + k] : 0;\n    const float y", "MG_TILE + first % MG_RUN + k] : 0;\n    const float y"),
    "pairs exchanged": (CUDA + "gram.cu", "return (size_t)i * (size_t)p.b_rows + (size_t)j;", "return (size_t)j * (size_t)p.a_rows + (size_t)i;"),
    "a product that is rounded before it is added": (CUDA + "gram.cu", "acc[u][v] = fmaf(s.x[m.x + u][at], s.y[m.y + v][at], acc[u][v]);", "acc[u][v] += s.x[m.x + u][at] * s.y[m.y + v][at];"),
    "links added up backwards": (CUDA + "gram.cu", "for (int l = 0; l < CHAINS; l += 2)", "for (int l = CHAINS - 2; l >= 0; l -= 2)"),
    "a link's two chains added one after the other": (CUDA + "gram.cu", "flushed(chain[l] + chain[l + 1])", "chain[l]) + flushed(chain[l + 1]"),
    "links of the last slab alone": (CUDA + "gram.cu", "chained = add_links(chain[part][lane], chained)", "chained = add_links(chain[part][lane], 0)"),
    "subnormal numbers in chains": (CUDA + "gram.cu", "acc = flushing_fma(x[k], y[k], acc)", "acc = fmaf(x[k], y[k], acc)"),
    "subnormal sums of links": (CUDA + "gram.cu", "sum = flushed(sum + flushed(", "sum = (sum + flushed("),
    "what rounds up to the smallest normal number always kept": (CUDA + "gram.cu", "if (fabsf(sum) != FLT_MIN) return", "return"),
    "tiny elements taken for others": (CUDA + "gram.cu", "fabsf(x) < 0x1p-56f", "fabsf(x) < 0x1p-57f"),
    "the base's row in chains": (CUDA + "gram.cu", "return i < p.a_chained && j < p.b_chained;", "return i < p.a_chained && j <= p.b_chained;"),
    "a block of both kinds of pairs taken for one of chains": (CUDA + "gram.cu", "lanes = !is_chained(p, i_end - 1, j_end - 1)", "lanes = !chains"),
    "rows of the right side in no chains": (GRAM + "lane.c", "chained > first ? chained - first : 0", "first == 0 ? chained : 0"),
    "products of a tile in the place of those before": (CUDA + "gram.cu", "* ACCUMULATORS] += (double)product", "* ACCUMULATORS] = (double)product"),
    "products by the other side's rows": (CUDA + "gram.cu", "product[(size_t)i * (size_t)p.b_rows + (size_t)j]", "product[(size_t)j * (size_t)p.a_rows + (size_t)i]"),
    "TF32 that nobody turns on": (CUDA + "queue.c", "? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH", "? CUBLAS_DEFAULT_MATH : CUBLAS_DEFAULT_MATH"),
    "small halves taken for zeros": (CUDA + "gram.cu", "(float)fraction * 5.9604644775390625e-8f", "0 * (float)fraction"),
    "accumulators that begin anew with each tile": (CUDA + "gram.cu", "double total = acc[k];", "double total = 0;"),
    "packed pieces sought where they came from": (CUDA + "merge.cu", "m.packed ? (uint64_t)blockIdx.x * MG_PIECE_ELEMENTS + k : at", "at"),
    "a base that is not the one that sources are relative to": (CUDA + "merge.cu", "m.other != NULL ? m.base[at] + m.other[at] : m.base[at]", "m.base[at]"),
    "what is packed made relative once more": (CUDA + "merge.cu", "m.other != NULL && !m.packed ?", "m.other != NULL ?"),
    "weights where votes belong": (CUDA + "merge.cu", "votes += m.vote[s] * within(m, e, s)", "votes += m.weight[s] * within(m, e, s)"),
    "a sum that is not fused": (CUDA + "merge.cu", "total = fma(m.weight[s], raw(m, e, s), total);", "total += m.weight[s] * raw(m, e, s);"),
    "random words out of order": (CUDA + "philox.h", "k % 4 == 1 ? c1 : k % 4 == 2 ? c2", "k % 4 == 1 ? c2 : k % 4 == 2 ? c1"),
    "the last element that is not finite": (CUDA + "merge.cu", "if (!isfinite(value)) atomicMin((unsigned long long *)&m.verdict->bad, (unsigned long long)e.number);", "if (!isfinite(value)) m.verdict->bad = e.number;"),
    "factors of a product exchanged": (CUDA + "open.c", "n, m, k, &one, w, k, a, a_stride,", "n, m, k, &one, a, a_stride, w, k,"),
    "a staging buffer filled while it is copied": (CUDA + "queue.c", 'MG_TRY(mg_cuda_check(q->device, cudaEventSynchronize(q->staged[q->turn]), "copying to the device"), done);', ""),
    "a queue that does not wait for another": (CUDA + "queue.c", "cudaStreamWaitEvent(q->stream, m->event, 0)", "cudaSuccess"),
    "pieces of the arena that overlap": (CUDA + "memory.c", "a->pieces[*at].offset - *offset >= bytes", "a->pieces[*at].offset > *offset"),
    "a tile read over one that is being copied": (GRAM + "lane.c", "MG_TRY(l->device->ops->await(s->done), done);", ""),
    "accumulators fetched before they are done": (GRAM + "lane.c", "MG_TRY(l->device->ops->finish(l->queue), done);\n  memcpy", "memcpy"),
    "answers taken before they are there": (ENCODER + "forward_device.c", "MG_TRY(b->ops->await(slot->done), done);", ""),
    "weights that are not sent again": (ENCODER + "encoder.c", "if (e->on_device != NULL) e->on_device->current[e->on_device->model] = false;", ""),
}


def planted(bug, folder):
    """The mutated file, in a copy of its folder, whose headers it then sees."""
    file, old, new = BUGS[bug]
    with open(f"{SOURCE}/{file}", encoding="utf-8") as source:
        text = source.read()
    if text.count(old) < 1:
        raise SystemExit(f"{bug}: {file} has no '{old}' any more: plant it anew")
    here = os.path.join(folder, os.path.dirname(file))
    shutil.copytree(f"{SOURCE}/{os.path.dirname(file)}", here)
    with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
        out.write(text.replace(old, new, 1))
    return file, here


def compiled(entries, file, here, folder):
    """Objects of the mutated file, or of all that include it."""
    own = f"{SOURCE}/{os.path.dirname(file)}"
    objects = {}
    for entry in entries:
        name = os.path.relpath(entry["file"], SOURCE)
        emulated = "mg_cuda_emulated" in entry["command"]
        if os.path.dirname(name) != os.path.dirname(file) or (name.startswith(CUDA) and not emulated):
            continue
        if name != file and not (file.endswith(".h") and name.endswith(".cu")):
            continue
        words = shlex.split(entry["command"])
        target = words[words.index("-o") + 1]
        out = os.path.join(folder, os.path.basename(target))
        words[words.index("-o") + 1] = out
        words = [here + w[len(own):] if w.startswith(own) else "-I" + here if w == f"-I{own}" else w for w in words]
        subprocess.run(words + ["-Wno-error", "-w", "-O1"], cwd=entry["directory"], check=True, capture_output=True)
        objects[os.path.normpath(os.path.join(entry["directory"], target))] = out
    return objects


def linked(build, objects, folder, test):
    """The test with those objects for the real ones: in their place, or before the library that has them."""
    where = f"{build}/tests/cuda"
    with open(f"{where}/CMakeFiles/{test}_on_device.dir/link.txt", encoding="utf-8") as file:
        words = shlex.split(file.read())
    program = os.path.join(folder, "test")
    words[words.index("-o") + 1] = program
    rest = dict(objects)
    for k, word in enumerate(words):
        words[k] = rest.pop(os.path.normpath(os.path.join(where, word)), word)
    at = words.index("-o")
    words[at:at] = rest.values()
    subprocess.run(words, cwd=where, check=True, capture_output=True)
    return program


def noticed(program, way):
    """What the first test that fails says; None: none does."""
    process = subprocess.Popen([program], env={**os.environ, **way}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    hangs = threading.Event()
    alarm = threading.Timer(120, lambda: (hangs.set(), process.kill()))
    alarm.start()
    said = failed = None
    with process:
        for line in process.stderr:
            said = said or (line.strip() if line.startswith(("ERROR", "emulated", "[  ERROR")) else None)
            if line.startswith("[  FAILED  ]"):
                failed = True
                process.kill()  # the other tests need not run
    alarm.cancel()
    if hangs.is_set():
        return "it hangs"
    return said or f"exit {process.returncode}" if failed or process.returncode != 0 else None


def caught(build, entries, bug):
    """How a bug was noticed; None: it was not."""
    with tempfile.TemporaryDirectory() as folder:
        file, here = planted(bug, folder)
        test = "test_statistics" if bug in STATISTICS else "test_merge_pass" if bug in PASSES else "test_device"
        program = linked(build, compiled(entries, file, here, folder), folder, test)
        for way in WAYS:
            how = noticed(program, way)
            if how is not None:
                return how
    return None


def main():
    build, names = os.path.abspath(sys.argv[1]), sys.argv[2:] or list(BUGS)
    if names[0] == "--every":
        names = list(BUGS)[::int(names[1])]
    with open(f"{build}/compile_commands.json", encoding="utf-8") as file:
        entries = json.load(file)
    missed = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for bug, how in zip(names, pool.map(lambda bug: caught(build, entries, bug), names)):
            print(f"{bug}: {how or 'NOT NOTICED'}", flush=True)
            if how is None:
                missed.append(bug)
    print(f"{len(names) - len(missed)} of {len(names)} bugs noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
