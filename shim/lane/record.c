#define _GNU_SOURCE
#include "record.h"

#include <endian.h>
#include <string.h>

#include "siphash.h"

_Static_assert(sizeof(struct as_lane_record) == 80, "no padding");
_Static_assert(sizeof(struct as_client_name) == sizeof((struct as_lane_entry *)0)->name, "the size of a client's name");

enum { SIGNED = offsetof(struct as_lane_record, mac), HEAD = offsetof(struct as_lane_record, lane), REFUSES = 0x80 };

static const uint8_t head[HEAD] = {'A', 'S', 'P', 'C', AS_PEER_VERSION, AS_LANE_KIND, 0, SIGNED - HEAD};

void seal_record(struct as_lane_record *record, const uint8_t key[AS_LANE_KEY]) {
    memcpy(record, head, HEAD);
    siphash128(key, record, SIGNED, record->mac);
}

bool same_mac(const uint8_t one[16], const uint8_t other[16]) {
    uint8_t differ = 0;
    for (int i = 0; i < 16; i++) differ |= one[i] ^ other[i];
    return differ == 0;
}

bool is_sealed(const struct as_lane_record *record, const uint8_t key[AS_LANE_KEY]) {
    uint8_t mac[16];
    siphash128(key, record, SIGNED, mac);
    return memcmp(record, head, HEAD) == 0 && same_mac(mac, record->mac);
}

bool may_be_record(const void *begin, size_t size) {
    return memcmp(begin, head, size < HEAD ? size : HEAD) == 0;
}

void make_refusal(const struct as_lane_record *record, const uint8_t key[AS_LANE_KEY], uint8_t refusal[AS_REFUSAL]) {
    struct as_lane_record refused = *record;
    refused.kind |= REFUSES;
    siphash128(key, &refused, SIGNED, refusal);
}

static int family_of(const uint8_t ip[16]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(ip, mapped, sizeof mapped) == 0 ? 4 : 6;
}

struct as_client_name name_of_record(const struct as_lane_record *record, uint32_t salt, int server_family,
                                     int medium) {
    struct as_client_name name = {.tag = {'a', 's', 'c'},
                                  .salt = salt,
                                  .source_port = be16toh(record->source_port),
                                  .dest_port = be16toh(record->dest_port),
                                  .client_family = (uint8_t)family_of(record->source_ip),
                                  .server_family = (uint8_t)server_family,
                                  .medium = (uint16_t)medium};
    memcpy(name.source_ip, record->source_ip, 16);
    memcpy(name.dest_ip, record->dest_ip, 16);
    return name;
}
