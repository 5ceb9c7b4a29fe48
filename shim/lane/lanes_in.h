/* Lanes that lead to this host: takes the connections that come by them, on a thread of its own that runs no Python
 * (edge/lanes_in.py); cffi reads this, as it does wire.h and lane.h.
 *
 * How it works. The thread accepts all that comes to the peer port. What begins with a record of a lane (lane.h) is
 * given to the instance that the lane leads to, or refused; all else is the trap handler's, unread: the descriptor's
 * number is written to it. A lane is good while the epoch is the one that it was judged in, so whatever revokes what it
 * rests on does so at once. One lock: whoever changes a lane knows that no connection of it is half way in.
 */
#ifndef APPSWITCH_LANE_LANES_IN_H
#define APPSWITCH_LANE_LANES_IN_H

#include <stdint.h>

#include "lane.h"

struct as_lanes_in;

/* told: the thread writes int32_t there, each a message: a descriptor that was accepted; AS_LANE_NEWS, once there is
 * something to take; AS_LANE_STALE, when one isn't taken since its lane is of another epoch. Its other end's close ends
 * the thread. listening and told: non-blocking, they stay the caller's. epoch_fd: of the page (shim/epoch.h). NULL:
 * errno says why. */
struct as_lanes_in *as_lanes_in_new(int listening, int told, int epoch_fd, uint32_t salt);

enum { AS_LANE_NEWS = -1, AS_LANE_STALE = -2 };

/* What the thread does, until `told` is closed at the other end. */
void as_lanes_in_run(struct as_lanes_in *lanes);

void as_lanes_in_free(struct as_lanes_in *lanes);

/* A new one; its place is number % AS_MOST_LANES, what was there goes. handle: an O_PATH descriptor of the instance's
 * listener, which stays the caller's; family: that one's, 4 or 6; client_family: of those who may come. 0, -errno. */
int as_lane_put(struct as_lanes_in *lanes, uint64_t number, const uint8_t *key, int handle, int family,
                int client_family, uint64_t epoch);

/* It was judged once more; epoch: when. 0: it isn't good any more, but is still refused by name. */
void as_lane_judged(struct as_lanes_in *lanes, uint64_t number, uint64_t epoch);

/* It has gone. */
void as_lane_drop(struct as_lanes_in *lanes, uint64_t number);

/* What has been delivered since this was asked last, up to `most`: how many. */
int as_lanes_in_take(struct as_lanes_in *lanes, struct as_lane_entry *entries, int most);

#endif
