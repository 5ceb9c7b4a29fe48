/* What the environment says: the trap socket, the preload itself, and who this process is without the wrapper. */
#ifndef APPSWITCH_SETTINGS_H
#define APPSWITCH_SETTINGS_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "wire.h"

struct settings {
    struct sockaddr_un socket;
    int is_default;               /* the socket's place was not told: its owner is checked */
    int too_long;                 /* what describe_settings would give */
    int in_namespace;             /* APPSWITCH_APP=netns:COOKIE: spawn gave us a network namespace */
    uint64_t netns;               /* its cookie (SO_NETNS_COOKIE) */
    char tracer[256];             /* the path of appswitch-tracer, beside the preloaded library; empty: not known */
    uint8_t token[AS_TOKEN_SIZE]; /* zeros: identified by the network namespace, or not yet registered */
};

/* Read on first use: a program may call before constructors have run. */
const struct settings *get_settings(void);

/* Whether `fd` is a socket of a network namespace that the process has made for itself: there, the kernel answers. */
int is_elsewhere(int fd);

/* The token that AS_REGISTER gave; forked children have it in memory, exec'd ones through kept_environment. */
void set_token(const uint8_t token[AS_TOKEN_SIZE]);

/* "netns:COOKIE", where AS_REGISTER has made the namespace an app's: a container's. Goes to children likewise. */
void set_namespace(const char *app);

/* APPSWITCH_NAME, _IP, _TAGS, _TCP and _BYPASS as NUL-terminated NAME=value strings; returns their size (<=
 * AS_TEXT_SIZE). */
size_t describe_settings(char text[AS_TEXT_SIZE]);

/* Says on stderr, once a process, why it has no network, and what to do. */
void complain_no_handler(void);
void complain_version(void);
void complain_too_long(void);
void complain_refused(const char *reason);

/* exec with a clean environment would lose the preload. How many entries `kept_environment` may need for `given`, the
 * closing NULL included. */
size_t kept_environment_size(char *const given[]);

enum { AS_PRELOAD_SIZE = 8192 };

/* Copies `given` to `out` and adds what is missing of LD_PRELOAD, APPSWITCH_SOCKET, _APP and _TRACER. Where `given`
 * has an LD_PRELOAD without us, `preload` gets both. Writes to nothing else, as a vfork child must. */
void kept_environment(char *const given[], char *out[], char preload[AS_PRELOAD_SIZE]);

#endif
