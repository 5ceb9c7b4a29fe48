/* SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): a MAC for
 * records of a few dozen bytes that costs a tenth of a microsecond. */
#ifndef APPSWITCH_LANE_SIPHASH_H
#define APPSWITCH_LANE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

void siphash128(const uint8_t key[16], const void *data, size_t size, uint8_t out[16]);

#endif
