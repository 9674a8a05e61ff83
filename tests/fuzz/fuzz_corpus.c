/* Files of texts: the first byte says JSON lines or TSV, with or without labels. */

#include "mergegrid/corpus.h"
#include "scratch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[256], id[] = "id", text[] = "utt", label[] = "intent", partition[] = "partition";
  char *names[] = {"alarm_set", "music_play"}, *parts[] = {"test", "dev"};
  const mg_strings labels = {.count = 2, .items = names}, partitions = {.count = 2, .items = parts};
  mg_corpus corpora[2];
  if (size < 1) return 0;
  const char *dir = scratch_file(data[0] & 1 ? "x.tsv" : "x.jsonl", data + 1, size - 1, path);
  const mg_texts_spec spec = {.files = path, .id = id, .text = text, .label = label, .partition = partition};
  if (mg_corpus_read(&spec, "xx", &partitions, data[0] & 2 ? &labels : NULL, data[0] & 4 ? 3 : 0, corpora) == MG_OK)
    for (int p = 0; p < 2; p++) mg_corpus_free(&corpora[p]);
  scratch_remove(dir, path);
  return 0;
}
