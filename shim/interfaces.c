/* The addresses of this host (getifaddrs(3), netdevice(7)), where there is no namespace: spawn --no-netns, LD_PRELOAD
 * alone. Programs bind what they find there, or tell others of it; the host's interfaces aren't the app's. So they see
 * what they would in a namespace: lo alone, with the app's addresses besides its own. In a namespace the kernel says
 * so.
 */
#define _GNU_SOURCE
#include "interfaces.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/ioctl.h>

#include "channel.h"
#include "fresh.h"
#include "hooks.h"
#include "libc.h"
#include "memory.h"
#include "names.h"
#include "settings.h"
#include "sys.h"

enum { ADDRESSES = 4, V4_ADDRESSES = 2, OWN_V4 = 1, OWN_V6 = 3 };

static const char lo[IFNAMSIZ] = "lo";

struct address {
    int family; /* 4 or 6 */
    uint8_t ip[16], mask[16];
};

/* Those of lo, IPv4 first. 0 or -errno. */
static int ask_addresses(struct address all[ADDRESSES]) {
    static const struct address known[ADDRESSES] = {
        {4, {[10] = 255, 255, 127, 0, 0, 1}, {[12] = 255}},
        {4, {0}, {[12 ... 15] = 255}},
        {6, {[15] = 1}, {[0 ... 15] = 255}},
        {6, {0}, {[0 ... 15] = 255}},
    };
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    struct as_own_ips own;
    new_request(&request, AS_OWN_IPS);
    int error = ask(&request, &reply, &passed);
    if (error < 0) return error;
    memcpy(&own, reply.text, sizeof own);
    memcpy(all, known, sizeof known);
    memcpy(all[OWN_V4].ip, own.v4, sizeof own.v4);
    memcpy(all[OWN_V6].ip, own.v6, sizeof own.v6);
    return 0;
}

/* What getifaddrs gives, as one block: it starts with the first entry, so that glibc's own freeifaddrs frees it, too.
 */
struct list {
    struct ifaddrs link, address[ADDRESSES];
    struct sockaddr_ll hardware;
    struct sockaddr_in6 ip[ADDRESSES], mask[ADDRESSES];
    struct rtnl_link_stats counters;
    char name[IFNAMSIZ];
};

static void show(struct list *list, const struct address all[ADDRESSES]) {
    memset(list, 0, sizeof *list);
    memcpy(list->name, lo, sizeof lo);
    list->hardware =
        (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_ifindex = 1, .sll_hatype = ARPHRD_LOOPBACK, .sll_halen = 6};
    list->link = (struct ifaddrs){.ifa_addr = (struct sockaddr *)&list->hardware, .ifa_data = &list->counters};
    struct ifaddrs *last = &list->link;
    for (int i = 0; i < ADDRESSES; i++) {
        socklen_t size = sizeof list->ip[i], mask_size = size;
        struct ifaddrs *each = &list->address[i];
        each->ifa_addr = (struct sockaddr *)&list->ip[i];
        each->ifa_netmask = (struct sockaddr *)&list->mask[i];
        write_sockaddr(all[i].family, all[i].ip, 0, each->ifa_addr, &size);
        write_sockaddr(all[i].family, all[i].mask, 0, each->ifa_netmask, &mask_size);
        last->ifa_next = each;
        last = each;
    }
    for (struct ifaddrs *each = &list->link; each; each = each->ifa_next) {
        each->ifa_name = list->name;
        each->ifa_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP;
    }
}

HOOK int getifaddrs(struct ifaddrs **first) {
    if (get_settings()->in_namespace) {
        int (*real)(struct ifaddrs **) = next("getifaddrs");
        return real ? real(first) : (int)result(-ENOSYS);
    }
    struct address all[ADDRESSES];
    int error = ask_addresses(all);
    if (error < 0) return (int)result(error);
    void *(*allocate)(size_t) = in_use("malloc");
    struct list *list = allocate ? allocate(sizeof *list) : 0;
    if (!list) return (int)result(-ENOMEM);
    show(list, all);
    *first = &list->link;
    return 0;
}

HOOK void freeifaddrs(struct ifaddrs *first) {
    int is_ours = !get_settings()->in_namespace;
    void (*real)(struct ifaddrs *) = next("freeifaddrs");
    void (*release)(void *) = in_use("free");
    if (is_ours && release)
        release(first);
    else if (real)
        real(first);
}

/* SIOCGIFCONF: IPv4 only (inet_gifconf in net/ipv4/devinet.c). Without a buffer: how large it has to be. */
static long list_addresses(int fd, struct ifconf *list) {
    struct ifconf none = {0};
    struct address all[ADDRESSES];
    long error = sys3(SYS_ioctl, fd, SIOCGIFCONF, &none);
    if (error < 0) return error; /* it is no socket */
    if (!can_write(fd, list, sizeof *list)) return -EFAULT;
    error = ask_addresses(all);
    if (error < 0) return error;
    struct ifreq *room = list->ifc_req;
    int count = room ? list->ifc_len / (int)sizeof *room : V4_ADDRESSES;
    count = count < 0 ? 0 : count < V4_ADDRESSES ? count : V4_ADDRESSES;
    if (room && count && !can_write(fd, room, (socklen_t)count * sizeof *room)) return -EFAULT;
    for (int i = 0; room && i < count; i++) {
        socklen_t size = sizeof room[i].ifr_addr;
        memset(&room[i], 0, sizeof room[i]);
        memcpy(room[i].ifr_name, lo, sizeof lo);
        write_sockaddr(4, all[i].ip, 0, &room[i].ifr_addr, &size);
    }
    list->ifc_len = count * (int)sizeof *room;
    return 0;
}

/* SIOCGIFADDR and the like: an interface has several addresses; the one is meant that is there already, else the first
 * (devinet_ioctl in net/ipv4/devinet.c). */
static long tell_address(int fd, unsigned long request, struct ifreq *asked) {
    static const uint8_t no_broadcast[16];
    struct ifreq host = {0};
    struct address all[ADDRESSES];
    memcpy(host.ifr_name, lo, sizeof lo);
    long error = sys3(SYS_ioctl, fd, request, &host);
    if (error < 0) return error; /* it is no socket, or not of a kind that tells */
    if (!can_write(fd, asked, sizeof *asked)) return -EFAULT;
    if (memcmp(asked->ifr_name, lo, 3) != 0) return -ENODEV;
    error = ask_addresses(all);
    if (error < 0) return error;
    struct sockaddr_in *in = (struct sockaddr_in *)&asked->ifr_addr;
    int is_own = in->sin_family == AF_INET && memcmp(&in->sin_addr, all[OWN_V4].ip + 12, 4) == 0;
    const struct address *meant = &all[is_own ? OWN_V4 : 0];
    const uint8_t *told = meant->ip;
    if (request == SIOCGIFNETMASK) told = meant->mask;
    if (request == SIOCGIFBRDADDR) told = no_broadcast;
    socklen_t size = sizeof *in;
    write_sockaddr(4, told, 0, &asked->ifr_addr, &size);
    return 0;
}

long do_ioctl(int fd, unsigned long request, void *argument) {
    request = (uint32_t)request;                           /* as the kernel does; musl's callers pass an int */
    if ((request & 0xff00) == 0x8900) settle_if_fresh(fd); /* a socket's (linux/sockios.h) */
    switch (request) {
    case SIOCGIFCONF:
        if (!get_settings()->in_namespace) return list_addresses(fd, argument);
        break;
    case SIOCGIFADDR:
    case SIOCGIFNETMASK:
    case SIOCGIFDSTADDR:
    case SIOCGIFBRDADDR:
        if (!get_settings()->in_namespace) return tell_address(fd, request, argument);
        break;
    }
    return sys3(SYS_ioctl, fd, request, argument);
}
