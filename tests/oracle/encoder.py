#!/usr/bin/env python3
"""What transformers computes for small encoders, as files that tests/unit/encoder compares with.

    tests/oracle/encoder.py            writes tests/data/encoder/<name>/ (needs torch, transformers, safetensors)
    tests/oracle/encoder.py --check    only says whether the files are what this machine's transformers gives

Each directory holds a checkpoint with random weights (config.json, model.safetensors) and expected.safetensors: ids, offset
(text k is ids[offset[k]:offset[k+1]]), states [layers + 1, tokens, hidden], logits [texts, classes] (not of bare encoders) and,
where it is small, attention of the first text [layers, heads, length, length]. `demo` has no checkpoint of its own: it is a
source of tests/data/emoji48.
"""
import pathlib
import sys

try:
    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import RobertaConfig, RobertaForSequenceClassification, XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent.parent
OUT = HERE / "data" / "encoder"
DEMO = HERE / "data" / "emoji48" / "xlm-roberta-emoji_k_sw-KE"

MODELS = {  # name: (class, config class, hidden, layers, heads, intermediate, positions, vocabulary, classes, lengths)
    "odd-heads": (XLMRobertaForSequenceClassification, XLMRobertaConfig, 60, 3, 5, 100, 40, 61, 7, [3, 2, 17, 38, 1, 16, 15, 33]),
    "one-layer": (RobertaForSequenceClassification, RobertaConfig, 24, 1, 3, 17, 34, 40, 2, [5, 32, 1, 9]),
    "long": (XLMRobertaForSequenceClassification, XLMRobertaConfig, 32, 2, 2, 64, 602, 50, 5, [600, 64, 63, 65, 128, 7, 400]),
    "bare": (XLMRobertaModel, XLMRobertaConfig, 48, 2, 4, 96, 70, 50, 0, [12, 30, 4, 68]),
}


def random_model(cls, config_class, hidden, layers, heads, intermediate, positions, vocabulary, classes, seed):
    torch.manual_seed(seed)
    extra = {"num_labels": classes} if classes else {}
    config = config_class(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=intermediate,
                          max_position_embeddings=positions, vocab_size=vocabulary, type_vocab_size=1, layer_norm_eps=1e-5,
                          pad_token_id=1, bos_token_id=0, eos_token_id=2, initializer_range=0.2, **extra)
    model = cls(config).eval()
    with torch.no_grad():  # biases and gains that a wrong order would show
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.1)
        embeddings = model.embeddings if cls is XLMRobertaModel else model.roberta.embeddings
        embeddings.word_embeddings.weight[1].normal_(0, 0.2)  # the padding token may be written in a text
    return model


def run(model, texts):
    states, logits, attention = [], [], None
    with torch.no_grad():
        for k, ids in enumerate(texts):
            out = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                        output_hidden_states=True, output_attentions=k == 0)
            states.append(torch.cat(out.hidden_states).numpy())
            if hasattr(out, "logits"):
                logits.append(out.logits[0].numpy())
            if k == 0:
                attention = torch.cat(out.attentions).numpy()
    data = {"ids": np.array([i for ids in texts for i in ids], dtype=np.int32),
            "offset": np.cumsum([0] + [len(ids) for ids in texts]).astype(np.int64),
            "states": np.ascontiguousarray(np.concatenate(states, axis=1), dtype=np.float32)}
    if logits:
        data["logits"] = np.stack(logits).astype(np.float32)
    if attention.size < 20000:
        data["attention"] = np.ascontiguousarray(attention, dtype=np.float32)
    return data


def texts_of(lengths, vocabulary, seed):
    rng = np.random.default_rng(seed)
    return [[0] + [int(i) for i in rng.integers(1 if k == 2 else 3, vocabulary, n - 1)] if n > 1 else [0] for k, n in enumerate(lengths)]


def main():
    check = sys.argv[1:] == ["--check"]
    worst = 0.0
    for seed, (name, spec) in enumerate(list(MODELS.items()) + [("demo", None)]):
        to = OUT / name
        if spec is None:
            model = XLMRobertaForSequenceClassification.from_pretrained(DEMO, attn_implementation="eager").float().eval()
            texts = texts_of([6, 12, 9, 40, 3, 64], 6002, seed)
        else:
            model = random_model(*spec[:-1], seed)
            model.set_attn_implementation("eager")
            texts = texts_of(spec[-1], spec[7], seed)
        if check and spec is not None:
            model = type(model).from_pretrained(to, attn_implementation="eager").float().eval()
        data = run(model, texts)
        if check:
            for key, want in load_file(to / "expected.safetensors").items():
                worst = max(worst, float(np.abs(data[key] - want).max() / max(np.abs(want).max(), 1e-30)))
            continue
        to.mkdir(parents=True, exist_ok=True)
        if spec is not None:
            model.save_pretrained(to)
        save_file(data, to / "expected.safetensors")
    print(f"largest difference {worst:.2e}" if check else f"written to {OUT}")
    return 0 if worst < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
