#include "turns.h"

#include <sys/mman.h>

#include "sys.h"

static uint32_t *counters;

static uint32_t *shared_counters(void) {
    uint32_t *none = 0, *shared = __atomic_load_n(&counters, __ATOMIC_ACQUIRE);
    if (shared) return shared;
    long at = sys6(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at < 0 && at > -4096) return 0;
    sys3(SYS_getrandom, at, COUNTERS * sizeof *counters, 0);
    if (__atomic_compare_exchange_n(&counters, &none, (uint32_t *)at, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return (uint32_t *)at;
    sys2(SYS_munmap, at, 4096); /* another thread was first */
    return none;
}

uint32_t coming_turn(int counter) {
    uint32_t *shared = shared_counters();
    return shared ? __atomic_load_n(&shared[counter], __ATOMIC_RELAXED) : 0;
}

uint32_t take_turn(int counter) {
    uint32_t *shared = shared_counters();
    return shared ? __atomic_fetch_add(&shared[counter], 1, __ATOMIC_RELAXED) : 0;
}

int whose_turn(uint32_t turn, const uint32_t *weight, int count) {
    enum { MOST_STEPS = 4096, MOST = 8 };
    int32_t credit[MOST] = {0}, total = 0;
    int richest = 0;
    for (int i = 0; i < count; i++) total += (int32_t)weight[i];
    uint32_t steps = total ? turn % (uint32_t)(total < MOST_STEPS ? total : MOST_STEPS) : 0;
    do { /* all earn their weight, the richest pays what all have earned */
        richest = 0;
        for (int i = 0; i < count; i++) {
            credit[i] += (int32_t)weight[i];
            if (credit[i] > credit[richest]) richest = i;
        }
        credit[richest] -= total;
    } while (steps--);
    return richest;
}
