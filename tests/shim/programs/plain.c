/* plain COMMAND ARG...: the command in a network namespace of its own, where lo has the addresses that the tests' app
 * has, and no AppSwitch: what the kernel's TCP does. */
#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct in6_request { /* struct in6_ifreq of linux/ipv6.h */
    struct in6_addr address;
    unsigned prefix;
    int index;
};

static void check(int value, const char *what) {
    if (value >= 0) return;
    perror(what);
    exit(125);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    check(unshare((geteuid() ? CLONE_NEWUSER : 0) | CLONE_NEWNET), "unshare");
    int v4 = socket(AF_INET, SOCK_DGRAM, 0), v6 = socket(AF_INET6, SOCK_DGRAM, 0);
    struct ifreq up = {.ifr_name = "lo"}, address = {.ifr_name = "lo:1"};
    up.ifr_flags = IFF_UP;
    check(ioctl(v4, SIOCSIFFLAGS, &up), "lo up");
    struct sockaddr_in *in = (struct sockaddr_in *)&address.ifr_addr;
    in->sin_family = AF_INET;
    inet_pton(AF_INET, "10.77.0.1", &in->sin_addr);
    check(ioctl(v4, SIOCSIFADDR, &address), "10.77.0.1");
    memset(&address.ifr_addr, 0, sizeof address.ifr_addr);
    in->sin_family = AF_INET;
    inet_pton(AF_INET, "255.255.255.255", &in->sin_addr);
    check(ioctl(v4, SIOCSIFNETMASK, &address), "netmask");
    struct in6_request address6 = {.prefix = 128, .index = 1};
    inet_pton(AF_INET6, "fd61:7073:7769::a4d:1", &address6.address);
    check(ioctl(v6, SIOCSIFADDR, &address6), "fd61:7073:7769::a4d:1");
    close(v4);
    close(v6);
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
