#ifndef MERGEGRID_RECIPE_IMPL_H
#define MERGEGRID_RECIPE_IMPL_H

#include "mergegrid/grid.h"

/* What `from` was given goes over what `to` has. Strings are borrowed. */
void mg_terms_put(mg_terms *to, const mg_terms *from);
/*
 * What follows from all that was said: a preset's bundle beneath it; a matrix' name where there is but one; the number of
 * sources where they are named.
 */
void mg_terms_complete(const mg_config *config, mg_terms *terms);
/* Does the lambda rule decide over this parameter, since nobody said it? */
bool mg_terms_ruled(const mg_terms *terms, size_t parameter);
/* mg_method_sums of those that elect signs: ties, dare_ties. */
bool mg_method_elects(const mg_method *method);

/* Appends the coordinates as JSON. */
void mg_terms_json(const mg_terms *terms, mg_text *json);

#endif
