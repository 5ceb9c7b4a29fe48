/* How it works. A ring has the last ports, in the order of their use. Whose turn comes while its connection is still
 * open (connect says so: EADDRNOTAVAIL) makes way for one that the kernel chooses.
 */
#include "source_ports.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

enum { MOST = 8192, OF_ALL = 4 }; /* a quarter of the ports that there are for connections is the relay's */

static uint16_t ports[MOST]; /* in network byte order; 0: none yet */
static unsigned next, size;

void open_ports(void) {
    unsigned first = 32768, last = 60999; /* ip_local_port_range in ip(7); IPv6 has the same */
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (file) {
        if (fscanf(file, "%u %u", &first, &last) != 2 || last < first) last = first;
        fclose(file);
    }
    size = (last - first) / OF_ALL + 1;
    if (size > MOST) size = MOST;
}

/* sin6_port lies where sin_port does. */
bool bind_to_used(int fd, int family) {
    int yes = 1;
    struct sockaddr_in6 any = {.sin6_family = (sa_family_t)family, .sin6_port = ports[next]};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes); /* of each, for what it leaves has it, too */
    return any.sin6_port && bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
}

void skip_port(void) {
    ports[next] = 0;
}

void note_port(int fd, bool bound) {
    if (!bound) {
        struct sockaddr_in6 own = {0};
        socklen_t length = sizeof own;
        getsockname(fd, (struct sockaddr *)&own, &length);
        ports[next] = own.sin6_port;
    }
    next = (next + 1) % size;
}
