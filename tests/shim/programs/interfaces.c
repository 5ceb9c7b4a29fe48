/* interfaces: the addresses of this host, as each way to ask for them says. */
#define OWN_MAIN
#include "test.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <sys/ioctl.h>

int main(void) {
    struct ifaddrs *first;
    OK(getifaddrs(&first));
    for (struct ifaddrs *each = first; each; each = each->ifa_next) {
        struct address got = {0};
        if (!each->ifa_addr || (each->ifa_addr->sa_family != AF_INET && each->ifa_addr->sa_family != AF_INET6))
            continue;
        memcpy(&got.storage, each->ifa_addr, each->ifa_addr->sa_family == AF_INET ? sizeof got.in : sizeof got.in6);
        printf("getifaddrs %s %s\n", each->ifa_name, ip_of(&got));
    }
    freeifaddrs(first);
    struct ifreq room[16], one = {.ifr_name = "lo"};
    struct ifconf all = {.ifc_len = sizeof room, .ifc_req = room};
    int fd = tcp("127.0.0.1");
    OK(ioctl(fd, SIOCGIFCONF, &all));
    for (size_t i = 0; i < (size_t)all.ifc_len / sizeof *room; i++)
        printf("SIOCGIFCONF %s %s\n", room[i].ifr_name, inet_ntoa(((struct sockaddr_in *)&room[i].ifr_addr)->sin_addr));
    OK(ioctl(fd, SIOCGIFADDR, &one));
    printf("SIOCGIFADDR lo %s\n", inet_ntoa(((struct sockaddr_in *)&one.ifr_addr)->sin_addr));
    return 0;
}
