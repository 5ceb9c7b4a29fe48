#include "epoch.h"

#include <sys/mman.h>

#include "channel.h"
#include "sys.h"
#include "wire.h"

enum { OWNER_DIED = 1 << 30 /* FUTEX_OWNER_DIED of linux/futex.h */ };

static const uint64_t *page; /* kept over fork; once mapped, it stays where it is */

static int is_over(uint64_t now) {
    return (now >> 32 & OWNER_DIED) != 0;
}

int still_true(uint64_t epoch) {
    const uint64_t *mapped = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    uint64_t now = mapped ? __atomic_load_n(mapped, __ATOMIC_ACQUIRE) : 0;
    if (!now) return 0;
    return now == epoch || (is_over(now) && (uint32_t)now == (uint32_t)epoch && !is_handler_there());
}

int wanted_epoch(void) {
    const uint64_t *mapped = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    return mapped && !is_over(__atomic_load_n(mapped, __ATOMIC_ACQUIRE)) ? 0 : AS_WANT_EPOCH;
}

void map_epoch(int fd) {
    const uint64_t *known = __atomic_load_n(&page, __ATOMIC_ACQUIRE), *none = 0;
    if (!wanted_epoch()) return; /* another thread was first */
    /* In the place of an old one: threads may be reading it. */
    long at = sys6(SYS_mmap, SYS_ARG_(known), 4096, PROT_READ, MAP_SHARED | (known ? MAP_FIXED : 0), fd, 0);
    if ((at < 0 && at > -4096) || known) return;
    if (!__atomic_compare_exchange_n(&page, &none, (const uint64_t *)at, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        sys2(SYS_munmap, at, 4096); /* another thread was first */
}
