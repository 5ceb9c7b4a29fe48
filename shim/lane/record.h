/* Making and checking a lane's records, and refusals of them (lane.h). */
#ifndef APPSWITCH_LANE_RECORD_H
#define APPSWITCH_LANE_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "lane.h"
#include "wire.h"

/* From all of the rest but the head. */
void seal_record(struct as_lane_record *record, const uint8_t key[AS_LANE_KEY]);

/* Whether its MAC is by this key. */
bool is_sealed(const struct as_lane_record *record, const uint8_t key[AS_LANE_KEY]);

/* Whether what a connection begins with may be the beginning of a record; size: bytes of it, at most a record's. */
bool may_be_record(const void *begin, size_t size);

/* What tells that this record's connection isn't taken. */
void make_refusal(const struct as_lane_record *record, const uint8_t key[AS_LANE_KEY], uint8_t refusal[AS_REFUSAL]);

/* Whether these are the same; takes as long whatever is in them. */
bool same_mac(const uint8_t one[16], const uint8_t other[16]);

/* The name that the socket at one end has (wire.h). */
struct as_client_name name_of_record(const struct as_lane_record *record, uint32_t salt, int server_family, int medium);

#endif
