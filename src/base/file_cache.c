/* A bounded set of open files. One lock for all: a hit costs a hash and two list moves, far below the read that follows. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/text.h"

struct mg_file_slot {
  uint64_t key;
  int fd; /* −1: free */
  int pins;
  mg_file_slot *chain;         /* of its hash bucket */
  mg_file_slot *older, *newer; /* least recently used list of all slots */
};

struct mg_file_cache {
  pthread_mutex_t lock;
  pthread_cond_t unpinned;
  size_t bound, buckets;
  mg_file_slot *slots, **table;
  mg_file_slot *oldest, *newest;
};

enum { MOST_FILES = 4096, KEPT_BACK = 64 };

size_t mg_file_cache_bound(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 128;
  if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < MOST_FILES + KEPT_BACK) {
    limit.rlim_cur = limit.rlim_max < MOST_FILES + KEPT_BACK ? limit.rlim_max : MOST_FILES + KEPT_BACK;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0) return 128;
  }
  if (limit.rlim_cur <= 2 * KEPT_BACK) return KEPT_BACK / 4;
  const rlim_t usable = limit.rlim_cur - KEPT_BACK;
  return usable > MOST_FILES ? MOST_FILES : (size_t)usable;
}

mg_status mg_file_cache_create(size_t bound, mg_file_cache **out) {
  mg_file_cache *cache = mg_alloc_zero(1, sizeof *cache);
  if (cache == NULL) return MG_ERR_NOMEM;
  if (bound < 1) bound = 1;
  cache->bound = bound;
  cache->buckets = 1;
  while (cache->buckets < 2 * bound) cache->buckets *= 2;
  cache->slots = mg_alloc_zero(bound, sizeof *cache->slots);
  cache->table = mg_alloc_zero(cache->buckets, sizeof(mg_file_slot *));
  if (cache->slots == NULL || cache->table == NULL) {
    free(cache->slots);
    free(cache->table);
    free(cache);
    return MG_ERR_NOMEM;
  }
  pthread_mutex_init(&cache->lock, NULL);
  pthread_cond_init(&cache->unpinned, NULL);
  for (size_t i = 0; i < bound; i++) {
    mg_file_slot *slot = &cache->slots[i];
    slot->fd = -1;
    slot->newer = i + 1 < bound ? slot + 1 : NULL;
    slot->older = i > 0 ? slot - 1 : NULL;
  }
  cache->oldest = &cache->slots[0];
  cache->newest = &cache->slots[bound - 1];
  *out = cache;
  return MG_OK;
}

void mg_file_cache_destroy(mg_file_cache **cache) {
  if (*cache == NULL) return;
  for (size_t i = 0; i < (*cache)->bound; i++)
    if ((*cache)->slots[i].fd >= 0) close((*cache)->slots[i].fd);
  pthread_mutex_destroy(&(*cache)->lock);
  pthread_cond_destroy(&(*cache)->unpinned);
  free((*cache)->slots);
  free((*cache)->table);
  free(*cache);
  *cache = NULL;
}

static mg_file_slot **bucket_of(mg_file_cache *cache, uint64_t key) {
  return &cache->table[(key * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (cache->buckets - 1)];
}

static void make_newest(mg_file_cache *cache, mg_file_slot *slot) {
  if (slot == cache->newest) return;
  if (slot->older != NULL) slot->older->newer = slot->newer;
  if (slot == cache->oldest) cache->oldest = slot->newer;
  slot->newer->older = slot->older;
  slot->older = cache->newest;
  slot->newer = NULL;
  cache->newest->newer = slot;
  cache->newest = slot;
}

static void forget(mg_file_cache *cache, mg_file_slot *slot) {
  if (slot->fd < 0) return;
  mg_file_slot **link = bucket_of(cache, slot->key);
  while (*link != slot) link = &(*link)->chain;
  *link = slot->chain;
  close(slot->fd);
  slot->fd = -1;
}

static mg_file_slot *oldest_unpinned(mg_file_cache *cache) {
  mg_file_slot *slot = cache->oldest;
  while (slot != NULL && slot->pins > 0) slot = slot->newer;
  return slot;
}

mg_status mg_file_acquire(mg_file_cache *cache, uint64_t key, const char *path, int *fd, mg_file_slot **out) {
  mg_status status = MG_OK;
  pthread_mutex_lock(&cache->lock);
  mg_file_slot *slot = *bucket_of(cache, key);
  while (slot != NULL && slot->key != key) slot = slot->chain;
  if (slot == NULL) {
    while ((slot = oldest_unpinned(cache)) == NULL) pthread_cond_wait(&cache->unpinned, &cache->lock);
    forget(cache, slot);
    const int opened = open(path, O_RDONLY | O_CLOEXEC);
    if (opened < 0) {
      status = mg_fail_errno(MG_ERR_IO, "%s", path);
      goto unlock;
    }
    slot->fd = opened;
    slot->key = key;
    slot->chain = *bucket_of(cache, key);
    *bucket_of(cache, key) = slot;
  }
  slot->pins++;
  make_newest(cache, slot);
  *fd = slot->fd;
  *out = slot;
unlock:
  pthread_mutex_unlock(&cache->lock);
  return status;
}

void mg_file_release(mg_file_cache *cache, mg_file_slot *slot) {
  pthread_mutex_lock(&cache->lock);
  if (--slot->pins == 0) pthread_cond_signal(&cache->unpinned);
  pthread_mutex_unlock(&cache->lock);
}
