/* by_address IP...: the names that addresses have, by gethostbyaddr and gethostbyaddr_r. */
#define OWN_MAIN
#include "test.h"

#include <netdb.h>

static void show_entry(const char *call, const struct hostent *entry, const struct address *asked) {
    const void *ip = asked->any.sa_family == AF_INET ? (void *)&asked->in.sin_addr : (void *)&asked->in6.sin6_addr;
    SAME(entry->h_addrtype, asked->any.sa_family);
    SAME(entry->h_length, asked->any.sa_family == AF_INET ? 4 : 16);
    CHECK(!memcmp(entry->h_addr_list[0], ip, (size_t)entry->h_length));
    CHECK(!entry->h_addr_list[1]);
    printf("%s %s %s\n", call, ip_of(asked), entry->h_name);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct address asked = at(argv[i], 0);
        int family = asked.any.sa_family, error = -1, size = family == AF_INET ? 4 : 16;
        const void *ip = family == AF_INET ? (void *)&asked.in.sin_addr : (void *)&asked.in6.sin6_addr;
        struct hostent *entry = gethostbyaddr(ip, (socklen_t)size, family), room, *result = &room;
        if (!entry) fail("gethostbyaddr %s: %s", argv[i], hstrerror(h_errno));
        show_entry("gethostbyaddr", entry, &asked);
        /* One byte more each time, and never aligned. */
        static char buffer[8192] __attribute__((aligned(8)));
        size_t size_needed = 0;
        memset(buffer, 0, sizeof buffer);
        while (gethostbyaddr_r(ip, (socklen_t)size, family, &room, buffer + 1, size_needed, &result, &error) == ERANGE) {
            CHECK(!result);
            CHECK(++size_needed < sizeof buffer - 1);
        }
        CHECK(result == &room);
        SAME(buffer[1 + size_needed], 0);
        show_entry("gethostbyaddr_r", result, &asked);
        CHECK(!gethostbyaddr(ip, (socklen_t)size - 1, family));
        CHECK(!gethostbyaddr(ip, (socklen_t)size, AF_UNIX));
    }
    return 0;
}
