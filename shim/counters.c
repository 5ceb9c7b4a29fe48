#include "counters.h"

#include <sys/mman.h>

#include "channel.h"
#include "latch.h"
#include "sys.h"
#include "wire.h"

static uint32_t *page;  /* kept over fork; once mapped, it stays where it is */
static uint64_t mapped; /* the number of what is there; 0: none */
static int latch;

void map_counters(uint64_t number, int fd) {
    if (__atomic_load_n(&mapped, __ATOMIC_ACQUIRE) == number) return;
    int pid = own_pid();
    if (!pid || try_latch(&latch, pid) == NOT_LATCHED) return; /* another thread is at it */
    uint32_t *known = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    /* In the place of an old one: threads may be about to write there, and one is counted wrongly at worst. */
    __atomic_store_n(&mapped, 0, __ATOMIC_RELEASE);
    long at = sys6(SYS_mmap, SYS_ARG_(known), AS_COUNTERS * sizeof *page, PROT_READ | PROT_WRITE,
                   MAP_SHARED | (known ? MAP_FIXED : 0), fd, 0);
    if (at >= 0 || at <= -4096) {
        __atomic_store_n(&page, (uint32_t *)at, __ATOMIC_RELEASE);
        __atomic_store_n(&mapped, number, __ATOMIC_RELEASE);
    }
    unlatch(&latch);
}

void count_connect(uint64_t number, uint32_t slot) {
    if (number && __atomic_load_n(&mapped, __ATOMIC_ACQUIRE) == number && slot < AS_COUNTERS)
        __atomic_fetch_add(&__atomic_load_n(&page, __ATOMIC_ACQUIRE)[slot], 1, __ATOMIC_RELAXED);
}
