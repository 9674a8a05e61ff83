execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --tags OUTPUT_VARIABLE describe
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(describe "")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT [=[
#include "mergegrid/version.h"
const char *mg_version(void) { return "@VERSION@"; }
const char *mg_git_describe(void) { return "@describe@"; }
const char *mg_build_flags(void) { return "@FLAGS@"; }
]=] @ONLY)
