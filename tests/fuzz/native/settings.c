/* The environment that a program was started with, whatever is in it, and another one that it gives its child
 * (shim/settings.c). */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#include "../../../shim/settings.c"

static const uint8_t *environment;
static size_t left, at_once;

long play_kernel(long number, long a, long to, long size, long d, long e, long f) {
    (void)a, (void)d, (void)e, (void)f;
    if (number == SYS_read) {
        size_t some = left < (size_t)size ? left : (size_t)size;
        if (some > at_once) some = at_once;
        if (some) memcpy((void *)to, environment, some);
        if (some) environment += some;
        left -= some;
        return (long)some;
    }
    return number == SYS_openat ? 3 : number == SYS_geteuid ? (long)at_once % 2 * 1000 : 0;
}

static void start_again(void) {
    for (int i = 0; i < KEPT; i++) kept[i][0] = 0;
    memset(&settings, 0, sizeof settings);
    described_size = 0;
    ready = 0;
}

/* What the child gets: each entry that it was given, and ours. */
static void hand_on(const uint8_t *data, size_t size) {
    char *text = calloc(1, size + 1), *given[65], preload[AS_PRELOAD_SIZE];
    size_t count = 0;
    memcpy(text, data, size);
    for (size_t at = 0; at < size && count < 64; at += strlen(text + at) + 1) given[count++] = text + at;
    given[count] = NULL;
    size_t room = kept_environment_size(given);
    char **out = malloc(room * sizeof *out);
    kept_environment(given, out, preload);
    for (size_t i = 0; i < count; i++)
        if (out[i] != given[i] && out[i] != preload) abort();
    free(out);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[AS_TEXT_SIZE];
    if (size < 1) return 0;
    start_again();
    at_once = 1 + data[0] * 64u;
    environment = data + 1;
    left = size - 1;
    const struct settings *read = get_settings();
    if (memchr(read->socket.sun_path, 0, sizeof read->socket.sun_path) == NULL) abort();
    if (memchr(read->tracer, 0, sizeof read->tracer) == NULL) abort();
    if (describe_settings(text) > sizeof text) abort();
    hand_on(data + 1, size - 1);
    set_token((const uint8_t *)"0123456789abcdef");
    return 0;
}
