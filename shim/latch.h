/* A latch guards a few words of memory for a few instructions. It is only ever tried, never waited for: who doesn't get
 * it asks the trap handler instead. It holds the pid of its holder, so a fork child that finds it held by a thread that
 * didn't come along knows that, takes it over, and drops what it guards. */
#ifndef APPSWITCH_LATCH_H
#define APPSWITCH_LATCH_H

enum latched { NOT_LATCHED, LATCHED, LATCHED_BROKEN /* what it guards may be half-written */ };

static inline enum latched try_latch(int *latch, int pid) {
    int held = 0;
    if (__atomic_compare_exchange_n(latch, &held, pid, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return LATCHED;
    if (held != pid && __atomic_compare_exchange_n(latch, &held, pid, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return LATCHED_BROKEN;
    return NOT_LATCHED;
}

static inline void unlatch(int *latch) {
    __atomic_store_n(latch, 0, __ATOMIC_RELEASE);
}

#endif
