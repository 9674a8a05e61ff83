/*
 * Any bytes as a configuration; lines "--set KEY=VALUE" in front are settings. What is accepted is written out and read back
 * to the same values; what is refused has a message.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char MARK[] = "--set ";

/* Takes the first line off the text if it is a setting. */
static bool take_setting(const char **text, size_t *size, mg_strings *settings) {
  const size_t mark = strlen(MARK);
  if (*size < mark || memcmp(*text, MARK, mark) != 0) return false;
  const char *end = memchr(*text, '\n', *size);
  const size_t length = end != NULL ? (size_t)(end - *text) : *size;
  char *setting = strndup(*text + mark, length - mark);
  if (setting == NULL || mg_strings_add(settings, setting) != MG_OK) abort();
  free(setting);
  *text += length + (end != NULL);
  *size -= length + (end != NULL);
  return true;
}

static void check_round_trip(const mg_config *config) {
  mg_config *again = NULL;
  mg_text once = {0}, twice = {0};
  if (mg_config_resolved(config, &once) != MG_OK) abort();
  if (mg_config_parse("elsewhere/again.yaml", once.data, once.size, NULL, &again) != MG_OK) abort();
  if (mg_config_resolved(again, &twice) != MG_OK) abort();
  if (once.size != twice.size || memcmp(once.data, twice.data, once.size) != 0) abort();
  mg_config_free(&again);
  mg_text_free(&once);
  mg_text_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  mg_strings settings = {0};
  mg_config *config = NULL;
  while (take_setting(&text, &size, &settings)) {
  }
  const mg_status status = mg_config_parse("dir/run.yaml", text, size, &settings, &config);
  if (status == MG_OK) {
    check_round_trip(config);
  } else {
    const bool of_setting = strncmp(mg_error_message(), MARK, strlen(MARK)) == 0;
    const bool of_file = strncmp(mg_error_message(), "dir/run.yaml:", strlen("dir/run.yaml:")) == 0;
    const bool expected = (status == MG_ERR_CONFIG && (of_setting || of_file)) || (status == MG_ERR_USAGE && of_setting);
    if (!expected || config != NULL) abort();
  }
  mg_config_free(&config);
  mg_strings_free(&settings);
  return 0;
}
