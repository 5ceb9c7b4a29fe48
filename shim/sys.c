/* The few functions that a freestanding library must bring itself. */
#include "sys.h"

#include <sys/socket.h>
#include <time.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#undef memcpy
#undef memset
#undef memcmp

/* Eight bytes at a time: what is copied on the way of each call is names of a hundred. */
typedef uint64_t __attribute__((may_alias, aligned(1))) word;

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    char *at = to;
    const char *source = from;
    for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word), source += sizeof(word))
        *(word *)at = *(const word *)source;
    while (size--) *at++ = *source++;
    return to;
}

void *memset(void *to, int byte, size_t size) {
    char *at = to;
    const word pattern = 0x0101010101010101u * (uint8_t)byte;
    for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word)) *(word *)at = pattern;
    while (size--) *at++ = (char)byte;
    return to;
}

/* A byte at a time: callers compare the beginnings of strings that may end before, and nothing is read behind an end.
 */
int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *x = a, *y = b;
    for (; size; size--, x++, y++)
        if (*x != *y) return *x - *y;
    return 0;
}

size_t as_strlen(const char *text) {
    size_t size = 0;
    while (text[size]) size++;
    return size;
}

int starts_with(const char *text, const char *prefix) {
    return memcmp(text, prefix, as_strlen(prefix)) == 0;
}

uint32_t hash_of(const void *key, size_t size) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)key)[i]) * 16777619u;
    return hash ^ hash >> 16;
}

char *write_number(char *at, unsigned number) {
    char digits[10];
    int count = 0;
    do digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count) *at++ = digits[--count];
    *at = 0;
    return at;
}

uint64_t milliseconds(void) {
    struct timespec now = {0, 0};
    sys2(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + 1;
}

static uint64_t get_cookie(int fd, int name) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    if (sys5(SYS_getsockopt, fd, SOL_SOCKET, name, &cookie, &size) < 0) return 0;
    return cookie;
}

uint64_t cookie_of(int fd) {
    return get_cookie(fd, SO_COOKIE);
}

uint64_t netns_of(int fd) {
    return get_cookie(fd, SO_NETNS_COOKIE);
}

int int_option(int fd, int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    if (sys5(SYS_getsockopt, fd, level, name, &value, &size) < 0) return 0;
    return value;
}
