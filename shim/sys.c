/* The few functions that a freestanding library must bring itself. */
#include "sys.h"

#include <sys/socket.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    for (size_t i = 0; i < size; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t size) {
    for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}

size_t as_strlen(const char *text) {
    size_t size = 0;
    while (text[size]) size++;
    return size;
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
