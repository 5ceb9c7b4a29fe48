/* Counting the connects that nobody is asked about (capability.h): in a page of memory of the app's, which the trap
 * handler reads. There is none while it doesn't count. What an app writes there is told of that app only. */
#ifndef APPSWITCH_COUNTERS_H
#define APPSWITCH_COUNTERS_H

#include <stdint.h>

/* Maps the page that `fd` is of in the place of another one; `number` tells them apart, and isn't 0. */
void map_counters(uint64_t number, int fd);

/* One more in a slot of that page, if it is still the one that is mapped. */
void count_connect(uint64_t number, uint32_t slot);

#endif
