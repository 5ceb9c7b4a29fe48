/* interfaces: the addresses of this host, as each way to ask for them says. Arguments: interfaces to ask about, too. */
#define OWN_MAIN
#include "test.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <sys/ioctl.h>

static void show_sockaddr(const char *what, const struct sockaddr *addr) {
    struct address got = {0};
    memcpy(&got.storage, addr, addr->sa_family == AF_INET ? sizeof got.in : sizeof got.in6);
    SAME(port_in(&got), 0);
    printf(" %s%s", what, ip_of(&got));
}

static void by_getifaddrs(void) {
    struct ifaddrs *first;
    OK(getifaddrs(&first));
    for (struct ifaddrs *each = first; each; each = each->ifa_next) {
        printf("getifaddrs %s", each->ifa_name);
        if (each->ifa_addr->sa_family == AF_PACKET) {
            printf(" hardware");
        } else {
            show_sockaddr("", each->ifa_addr);
            show_sockaddr("mask ", each->ifa_netmask);
        }
        printf(" flags %x\n", each->ifa_flags);
    }
    freeifaddrs(first);
    freeifaddrs(0);
}

static void by_list(int fd) {
    struct ifreq room[16];
    struct ifconf all = {.ifc_len = sizeof room, .ifc_req = room};
    OK(ioctl(fd, SIOCGIFCONF, &all));
    for (size_t i = 0; i < (size_t)all.ifc_len / sizeof *room; i++) {
        printf("SIOCGIFCONF %s", room[i].ifr_name);
        show_sockaddr("", &room[i].ifr_addr);
        OK(ioctl(fd, SIOCGIFADDR, &room[i]));
        show_sockaddr("SIOCGIFADDR ", &room[i].ifr_addr);
        OK(ioctl(fd, SIOCGIFDSTADDR, &room[i]));
        show_sockaddr("SIOCGIFDSTADDR ", &room[i].ifr_addr);
        OK(ioctl(fd, SIOCGIFNETMASK, &room[i]));
        show_sockaddr("SIOCGIFNETMASK ", &room[i].ifr_addr);
        OK(ioctl(fd, SIOCGIFBRDADDR, &room[i]));
        show_sockaddr("SIOCGIFBRDADDR ", &room[i].ifr_addr);
        printf("\n");
    }
    static const int sizes[] = {-1, 0, 1, sizeof *room, 2 * sizeof *room - 1, 2 * sizeof *room};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        all.ifc_len = sizes[i];
        OK(syscall(SYS_ioctl, fd, SIOCGIFCONF, &all));
        printf("with room for %d: %d\n", sizes[i], all.ifc_len);
    }
    all = (struct ifconf){.ifc_len = 1};
    OK(ioctl(fd, SIOCGIFCONF, &all));
    printf("without a buffer: %d\n", all.ifc_len);
}

static void about(int fd, const char *name) {
    struct ifreq one = {0};
    strncpy(one.ifr_name, name, sizeof one.ifr_name - 1);
    if (ioctl(fd, SIOCGIFADDR, &one) < 0) {
        printf("SIOCGIFADDR %s: errno %d\n", name, errno);
    } else {
        printf("SIOCGIFADDR %s", name);
        show_sockaddr("", &one.ifr_addr);
        printf("\n");
    }
}

static void refused(int fd) {
    static void *const nowhere = (void *)16;
    struct ifconf all = {.ifc_len = sizeof(struct ifreq), .ifc_buf = nowhere};
    struct ifreq one = {.ifr_name = "lo"};
    int pipes[2], waiting, unix_socket = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    FAILS(ioctl(fd, SIOCGIFCONF, &all), EFAULT);
    FAILS(ioctl(fd, SIOCGIFCONF, nowhere), EFAULT);
    FAILS(ioctl(fd, SIOCGIFADDR, nowhere), EFAULT);
    FAILS(ioctl(-1, SIOCGIFCONF, &all), EBADF);
    FAILS(ioctl(-1, SIOCGIFADDR, &one), EBADF);
    OK(pipe(pipes));
    FAILS(ioctl(pipes[0], SIOCGIFCONF, &all), ENOTTY);
    FAILS(ioctl(pipes[0], SIOCGIFADDR, &one), ENOTTY);
    FAILS(ioctl(unix_socket, SIOCGIFADDR, &one), ENOTTY);
    SAME(write(pipes[1], "abc", 3), 3);
    OK(ioctl(pipes[0], FIONREAD, &waiting));
    SAME(waiting, 3);
}

int main(int argc, char **argv) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
    by_getifaddrs();
    by_list(fd);
    about(fd, "lo");
    for (int i = 1; i < argc; i++) about(fd, argv[i]);
    refused(fd);
    return 0;
}
