#ifndef MERGEGRID_SIMILARITY_IMPL_H
#define MERGEGRID_SIMILARITY_IMPL_H

#include "mergegrid/labelled_table.h"
#include "mergegrid/similarity.h"

#endif
