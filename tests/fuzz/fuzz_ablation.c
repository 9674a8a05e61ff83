/* Any bytes as an ablation file: what is accepted comes to a grid that a configuration takes; what is refused has a message. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/ablation.h"
#include "mergegrid/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_grid(const mg_ablation *ablation) {
  mg_text text = {0};
  mg_config *config = NULL;
  mg_text_append(&text, "family: {base: b, sources: 's_{locale}'}\n%s", ablation->grid.data);
  if (text.failed || mg_config_parse("run.yaml", text.data, text.size, NULL, &config) != MG_OK) abort();
  if (config->grid.phase_count == 0) abort();
  mg_config_free(&config);
  mg_text_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mg_ablation ablation;
  const mg_status status = mg_ablation_read("dir/a.yaml", (const char *)data, size, NULL, &ablation);
  if (status == MG_OK)
    check_grid(&ablation);
  else if (status != MG_ERR_CONFIG || strncmp(mg_error_message(), "dir/a.yaml:", strlen("dir/a.yaml:")) != 0)
    abort();
  mg_ablation_free(&ablation);
  return 0;
}
