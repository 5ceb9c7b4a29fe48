#define _GNU_SOURCE
#include "apply.h"

#include <errno.h>
#include <netinet/in.h>

#include "capability.h"
#include "channel.h"
#include "fresh.h"
#include "memory.h"
#include "replace.h"
#include "settings.h"
#include "sys.h"
#include "tcp.h"

enum { MPTCP = 262 };

long identify_settled(int fd, struct identity *identity) {
    identify(fd, identity);
    if (identity->role != FRESH) return 0;
    long error = settle(fd);
    if (!error) identify(fd, identity);
    return error;
}

int unused_tcp_family(int fd, const struct identity *identity) {
    int family = identity->plain_family;
    if (identity->role != PLAIN || (family != AF_INET && family != AF_INET6) || identity->plain_port) return 0;
    if (int_option(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM) return 0;
    int protocol = int_option(fd, SOL_SOCKET, SO_PROTOCOL);
    return (protocol == IPPROTO_TCP || protocol == MPTCP) && !is_elsewhere(fd) ? family : 0;
}

const struct sockaddr *copy_inet(const struct sockaddr *addr, socklen_t size, struct sockaddr_storage *copy) {
    if (!addr || size < sizeof addr->sa_family || size > sizeof *copy || !can_read(addr, size)) return 0;
    memcpy(copy, addr, size < sizeof(struct sockaddr_in6) ? size : sizeof(struct sockaddr_in6));
    int is_inet = copy->ss_family == AF_INET || copy->ss_family == AF_INET6 || copy->ss_family == AF_UNSPEC;
    return is_inet ? (struct sockaddr *)copy : 0;
}

long check_room(int fd, struct sockaddr *addr, socklen_t *size, socklen_t full) {
    if (!can_read(size, sizeof *size)) return -EFAULT;
    if ((int)*size < 0) return -EINVAL;
    return can_write(fd, addr, *size < full ? *size : full) && can_write(fd, size, sizeof *size) ? 0 : -EFAULT;
}

socklen_t size_of_name(int family) {
    return family == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

long ask_and_replace(int fd, struct as_request *request, int status, int *kind) {
    struct as_reply reply;
    struct passed passed;
    long error = ask(request, &reply, &passed);
    if (error) return error;
    *kind = reply.kind;
    if (reply.kind == AS_FD_TCP && passed.count && reply.text_size == sizeof(struct as_client_name))
        remember_name(passed.fd[0], (struct as_client_name *)reply.text);
    keep_capabilities(&request->remote, &reply, &passed);
    return passed.count ? replace(fd, passed.fd[0], status) : 0;
}
