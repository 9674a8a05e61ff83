#!/usr/bin/env python3
"""Ids that Hugging Face's fast XLM-R tokenizer gives, as a file that tests/unit/tokenizer compares with.

    tests/oracle/tokenizer.py            writes tests/data/tokenizer/{expected.txt,tokenizer.json} (needs transformers)
    tests/oracle/tokenizer.py --check    only says whether expected.txt is what this machine's transformers gives

expected-4.34.txt and expected-4.40.txt are the same for tokenizer.json as these versions of transformers convert a SentencePiece
model (spaces looked after by the normalizer, Metaspace alone), without the last line. expected.txt has two lines a text: the text's UTF-8 bytes in hexadecimal, and its ids. It holds hostile strings, random ones, and a
sample of the demonstration's texts of every locale; and a last line with a hash of the ids of all of them.
"""
import json
import pathlib
import random
import sys

try:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent.parent
OUT = HERE / "data" / "tokenizer"
HOSTILE = ["", " ", "     ", "\t\n", "hello  world", " a", "a ", "a<mask>b </s> c", " <mask> x", "<s>", "<unk>q<pad>", "<mask", "<<mask>>",
           "</s></s>", "\x00", "\x00a\x01b", "\x7f\x80\x9f", "\u200b", "a\u200bb", "a\u00adb", "\ufeffx", "\U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467 x",
           "\U0001f1e9\U0001f1ea", "ﬁ ½ Å ① ㌀ ﷺ", "a\u0301", "e\u0323\u0302", "\u0301a", "한국어 각", "각", "▁▁a", "▁ ▁", "ＡＢＣ　ｄ", "tab\tnew\nline\r\nend",
           "\u2028x\u2029y", "\u3000", "\u00a0a\u00a0", "\u1680 \u180e \u202f", "नमस्ते", "สวัสดี", "ខ្មែរ", "العَرَبِيَّة", "\u202eabc", "x" * 300,
           "ab " * 200, "\U0001f600" * 50, "\ud7ff\ue000\U0010ffff", "<MASK>", "＜mask＞", "İıß", "𝒜𝓑", "…", "``''", "\\u0041", "1234567890 12,5%"]


VARIANTS = {"4.34": [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
            "4.40": [{"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]}


def variant(tokenizer, steps):
    """The same pieces, as SpmConverter of transformers 4 arranges what is around them."""
    root = json.loads(tokenizer.backend_tokenizer.to_str())
    root["normalizer"] = {"type": "Sequence", "normalizers": [root["normalizer"], *steps]}
    root["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return Tokenizer.from_str(json.dumps(root))


def lines_of(texts, encode):
    return "".join(text.encode("utf-8").hex() + "\n" + " ".join(map(str, encode(text))) + "\n" for text in texts)


def main():
    tokenizer = AutoTokenizer.from_pretrained(HERE / "data" / "emoji48" / "xlm-roberta-emoji")
    assert tokenizer.is_fast
    OUT.mkdir(parents=True, exist_ok=True)
    if "--check" not in sys.argv[1:]:  # before calls below leave their truncation in it
        tokenizer.backend_tokenizer.save(str(OUT / "tokenizer.json"), pretty=False)
    rng = random.Random(1)
    texts = list(HOSTILE)
    pool = [c for t in HOSTILE for c in t]
    texts += ["".join(rng.choice(pool) for _ in range(rng.randrange(1, 40))) for _ in range(400)]
    texts += ["".join(chr(rng.choice([rng.randrange(0x20, 0x3000), rng.randrange(0xa000, 0xd7ff), rng.randrange(0xf900, 0x1ffff)]))
                      for _ in range(rng.randrange(1, 12))) for _ in range(400)]
    everything = []
    for path in sorted((HERE / "data" / "emoji48" / "texts").glob("*.jsonl")):
        lines = [json.loads(line)["utt"] for line in path.read_text(encoding="utf-8").splitlines()]
        everything += lines
        texts += rng.sample(lines, 12)
    digest = 1469598103934665603  # FNV-1a over the ids of all of the demonstration's texts
    for ids in tokenizer(everything, truncation=True, max_length=64)["input_ids"]:
        for i in ids:
            digest = ((digest ^ i) * 1099511628211) & (2**64 - 1)
    files = {"expected.txt": lines_of(texts, lambda text: tokenizer(text, truncation=True, max_length=64)["input_ids"])
                             + f"all {len(everything)} {digest}\n"}
    for name, steps in VARIANTS.items():
        other = variant(tokenizer, steps)
        other.enable_truncation(64)
        files[f"expected-{name}.txt"] = lines_of(texts, lambda text, other=other: other.encode(text).ids)
    differs = 0
    for name, content in files.items():
        if "--check" in sys.argv[1:]:
            same = (OUT / name).read_text(encoding="ascii") == content
            print(f"{name} is" + ("" if same else " not") + " what this transformers gives")
            differs += not same
        else:
            (OUT / name).write_text(content, encoding="ascii")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
