#include "window.h"

#include <string.h>

_Static_assert(sizeof((struct as_window *)0)->seen * 8 == AS_WINDOW, "a bit each");

static void forget_until(struct as_window *window, uint64_t number) {
    if (number - window->highest >= AS_WINDOW)
        memset(window->seen, 0, sizeof window->seen);
    else
        for (uint64_t each = window->highest; each++ != number;) /* it may be the last one that there is */
            window->seen[each % AS_WINDOW / 64] &= ~(1ull << each % 64);
    window->highest = number;
}

bool use_number(struct as_window *window, uint64_t number) {
    if (number == 0 || (number <= window->highest && window->highest - number >= AS_WINDOW)) return false;
    if (number > window->highest) forget_until(window, number);
    uint64_t *word = &window->seen[number % AS_WINDOW / 64], bit = 1ull << number % 64;
    if (*word & bit) return false;
    *word |= bit;
    return true;
}
