#!/usr/bin/env python3
"""What PyTorch and transformers say of some of the demonstration's models: the tables of the notebook Merge Method Microscope.

    tests/oracle/microscope.py            writes tests/data/microscope/expected.json (needs torch and transformers)
    tests/oracle/microscope.py --check    only says whether the file is what this machine's transformers gives

Differences of parameters are of weights in fp32, merged and measured in float64; forward passes are fp32, eager attention.
signals.<probes>.<padding>: padding `include` is one batch padded to its longest text, as the notebook has it, `exclude` every
text by itself.
"""
import json
import pathlib
import sys

try:
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent.parent
DEMO = HERE / "data" / "emoji48"
OUT = HERE / "data" / "microscope" / "expected.json"
SETUPS = {"reference": {"af-ZA": 1}, "theirs": {"fr-FR": 1}, "mine": {"fr-FR": 0.5, "sw-KE": 0.5},
          "three": {"am-ET": 0.2, "ar-SA": 0.3, "fr-FR": 0.5}}
SIX = ["How can I upgrade my flight booking?", "Show me the weather forecast for tomorrow evening.",
       "I need to reset the password for my online banking.", "Find vegetarian restaurants near my location.",
       "Translate this sentence into French.", "Remind me to call my mom at 6 PM."]


def load(locale):
    return AutoModelForSequenceClassification.from_pretrained(DEMO / f"xlm-roberta-emoji_k_{locale}", dtype=torch.float32,
                                                              attn_implementation="eager").eval()


def merged(weights):
    model = load(next(iter(weights)))
    parts = [(weight, dict(load(locale).named_parameters())) for locale, weight in weights.items()]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(sum(weight * own[name].double() for weight, own in parts).float())
    return model


def layer_of(name):
    parts = name.split(".")
    at = parts.index("layer") if "layer" in parts else None
    return ".".join(parts[at:at + 4] if at is not None else parts[:-1])


def deltas(reference, model):
    rows = []
    with torch.no_grad():
        for (name, r), (_, c) in zip(reference.named_parameters(), model.named_parameters()):
            r, c = r.double().flatten(), c.double().flatten()
            cosine = torch.dot(r, c) / (max(r.norm().item(), 1e-8) * max(c.norm().item(), 1e-8))
            rows.append({"parameter": name, "layer": layer_of(name), "delta_l2": (c - r).norm().item(),
                         "delta_mean_abs": (c - r).abs().mean().item(), "cosine_with_reference": cosine.item(),
                         "reference_norm": r.norm().item(), "candidate_norm": c.norm().item()})
    return rows


def entropy(p):
    return -(p * (p + 1e-12).log()).sum(dim=-1)


def passes(model, tokenizer, texts, padded):
    """Of each batch: attention [layers][batch, heads, tokens, tokens], states [layers + 1][batch, tokens, width], logits."""
    batches = [texts] if padded else [[text] for text in texts]
    with torch.no_grad():
        for batch in batches:
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=128, return_tensors="pt")
            out = model(**inputs, output_attentions=True, output_hidden_states=True)
            yield [a.double() for a in out.attentions], [h.double() for h in out.hidden_states], out.logits.double()


def signals(model, tokenizer, texts, padded):
    outs = list(passes(model, tokenizer, texts, padded))
    attentions, states = [], []
    for layer in range(len(outs[0][0])):
        for head in range(outs[0][0][0].shape[1]):
            own = [out[0][layer][:, head] for out in outs]
            def mean(values):
                return torch.cat([v.flatten() for v in values]).mean().item()
            attentions.append({"layer": layer, "head": head, "mean_prob": mean(own), "entropy": mean([entropy(p) for p in own]),
                               "cls_focus": mean([p[:, :, 0] for p in own]),
                               "diagonal_focus": mean([p.diagonal(dim1=-2, dim2=-1) for p in own])})
    for layer in range(len(outs[0][1])):
        norms = [out[1][layer].norm(dim=-1) for out in outs]
        every = torch.cat([n.flatten() for n in norms])
        states.append({"layer": layer, "mean_token_norm": every.mean().item(), "max_token_norm": every.max().item(),
                       "std_token_norm": every.std().item(),
                       "sequence_mean_norm": torch.cat([n.mean(dim=-1) for n in norms]).mean().item()})
    logits = torch.cat([out[2] for out in outs])
    confidence = logits.softmax(dim=-1).max(dim=-1).values
    answers = {"logit_mean": logits.mean().item(), "logit_std": logits.std().item(), "confidence_mean": confidence.mean().item(),
               "confidence_std": confidence.std().item(), "entropy_mean": entropy(logits.softmax(dim=-1)).mean().item()}
    return {"attentions": attentions, "hidden_states": states, "logits": answers}


def corpus(locale, partition, limit):
    records = map(json.loads, (DEMO / "texts" / f"{locale}.jsonl").read_text(encoding="utf-8").splitlines())
    return [record["utt"] for record in records if record["partition"] == partition][:limit]


def differs(a, b):
    if isinstance(a, dict):
        return set(a) != set(b) or any(differs(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) != len(b) or any(map(differs, a, b))
    return abs(a - b) > 1e-4 * max(abs(a), abs(b), 1e-3) if isinstance(a, float) else a != b


def main():
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "xlm-roberta-emoji")
    models = {name: merged(weights) for name, weights in SETUPS.items()}
    probes = {"six": SIX, "locale": corpus("sw-KE", "test", 20)}
    made = {"setups": SETUPS,
            "parameter_deltas": {name: deltas(models["reference"], model) for name, model in models.items() if name != "reference"},
            "signals": {which: {padding: {name: signals(model, tokenizer, texts, padding == "include") for name, model in models.items()}
                                for padding in ("include", "exclude")} for which, texts in probes.items()}}
    made = json.loads(json.dumps(made), parse_float=lambda text: float(f"{float(text):.9g}"))
    if "--check" not in sys.argv[1:]:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(made) + "\n", encoding="utf-8")
        print(OUT)
    elif differs(made, json.loads(OUT.read_text(encoding="utf-8"))):
        sys.exit(f"{OUT} is not what torch {torch.__version__} gives")


if __name__ == "__main__":
    main()
