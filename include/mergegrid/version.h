#ifndef MERGEGRID_VERSION_H
#define MERGEGRID_VERSION_H

/** What this build is. Not collective. */

const char *mg_version(void);      /**< "0.1.0" */
const char *mg_git_describe(void); /**< of the sources this was built from, "" outside a checkout */
const char *mg_build_flags(void);  /**< compiler and flags */

#endif
