#include "epoch.h"

#include <sys/mman.h>

#include "sys.h"
#include "wire.h"

static const uint64_t *page; /* kept over fork */

int still_true(uint64_t epoch) {
    const uint64_t *mapped = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    return mapped && __atomic_load_n(mapped, __ATOMIC_ACQUIRE) == epoch;
}

int wanted_epoch(void) {
    return __atomic_load_n(&page, __ATOMIC_ACQUIRE) ? 0 : AS_WANT_EPOCH;
}

void map_epoch(int fd) {
    const uint64_t *none = 0;
    long at = sys6(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (at < 0 && at > -4096) return;
    if (!__atomic_compare_exchange_n(&page, &none, (const uint64_t *)at, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        sys2(SYS_munmap, at, 4096); /* another thread was first */
}
