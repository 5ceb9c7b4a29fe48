#include "siphash.h"

#include <endian.h>
#include <string.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static uint64_t turn(uint64_t word, int bits) {
    return word << bits | word >> (64 - bits);
}

static void mix(struct state *s, int rounds) {
    while (rounds--) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = turn(s->v1, 13) ^ s->v0;
        s->v3 = turn(s->v3, 16) ^ s->v2;
        s->v0 = turn(s->v0, 32) + s->v3;
        s->v2 += s->v1;
        s->v3 = turn(s->v3, 21) ^ s->v0;
        s->v1 = turn(s->v1, 17) ^ s->v2;
        s->v2 = turn(s->v2, 32);
    }
}

static uint64_t word_at(const void *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return le64toh(word);
}

static void absorb(struct state *s, uint64_t word) {
    s->v3 ^= word;
    mix(s, 2);
    s->v0 ^= word;
}

static void put_half(const struct state *s, uint8_t *out) {
    uint64_t half = htole64(s->v0 ^ s->v1 ^ s->v2 ^ s->v3);
    memcpy(out, &half, sizeof half);
}

void siphash128(const uint8_t key[16], const void *data, size_t size, uint8_t out[16]) {
    const uint8_t *bytes = data;
    uint64_t k0 = word_at(key), k1 = word_at(key + 8);
    struct state s = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee, k0 ^ 0x6c7967656e657261,
                      k1 ^ 0x7465646279746573};
    size_t whole = size / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) absorb(&s, word_at(bytes + i));
    uint64_t last = (uint64_t)size << 56;
    for (size_t i = whole; i < size; i++) last |= (uint64_t)bytes[i] << 8 * (i - whole);
    absorb(&s, last);
    s.v2 ^= 0xee;
    mix(&s, 4);
    put_half(&s, out);
    s.v1 ^= 0xdd;
    mix(&s, 4);
    put_half(&s, out + 8);
}
