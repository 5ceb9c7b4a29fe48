/* What libFuzzer does, without what it knows of a program's branches: any compiler can build it.
 *
 * driver COUNT SEED MOST FILE...: has the target look at each file, then at COUNT inputs that are made of them by
 * chance; the same seed makes the same ones. MOST: bytes of an input. The last line is how many there were. What a
 * crash was about is kept in the file "crash-input".
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak)); /* none under valgrind */

struct input {
    size_t size;
    uint8_t *data;
};

enum { MOST_SEEDS = 4096 };
static struct input seeds[MOST_SEEDS];
static size_t seed_count, most;
static uint64_t state, tried;
static const uint8_t *current;
static size_t current_size;

static void keep_input(void) {
    if (!current_size) return; /* a leak, found at the end */
    int fd = open("crash-input", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(fd, current, current_size) < 0) return;
    dprintf(2, "input %lu of %lu bytes: crash-input\n", (unsigned long)tried, (unsigned long)current_size);
}

static void on_signal(int number) {
    keep_input();
    signal(number, SIG_DFL);
    raise(number);
}

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016) */
static uint64_t chance(uint64_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return below ? state * 0x2545f4914f6cdd1du % below : 0;
}

static void try(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1); /* so that a byte beyond is seen */
    memcpy(exact, data, size);
    current = exact;
    current_size = size;
    tried++;
    LLVMFuzzerTestOneInput(exact, size);
    current_size = 0;
    free(exact);
}

static const uint64_t telling[] = {0,
                                   1,
                                   2,
                                   4,
                                   8,
                                   16,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0x7fff,
                                   0x8000,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x7fffffffffffffff,
                                   0x8000000000000000,
                                   0xffffffffffffffff};

static size_t mutate(uint8_t *data, size_t size) {
    static const size_t widths[] = {1, 2, 4, 8};
    size_t at = chance(size), width = widths[chance(4)], from, length;
    const struct input *other = &seeds[chance(seed_count)];
    switch (chance(8)) {
    case 0:
        if (size) data[at] ^= (uint8_t)(1 << chance(8));
        return size;
    case 1:
        if (size) data[at] = (uint8_t)chance(256);
        return size;
    case 2:
        if (at + width <= size) memcpy(data + at, &telling[chance(sizeof telling / sizeof *telling)], width);
        return size;
    case 3: /* a little more or less */
        if (size) data[at] = (uint8_t)(data[at] + chance(17) - 8);
        return size;
    case 4:
        return chance(size + 1);
    case 5: /* some of it once more, elsewhere */
        from = chance(size);
        length = chance(size - (at > from ? at : from) + 1);
        memmove(data + at, data + from, length);
        return size;
    case 6: /* a part of another one */
        if (!other->size) return size;
        from = chance(other->size);
        length = chance(other->size - from + 1);
        if (length > most - at) length = most - at;
        memcpy(data + at, other->data + from, length);
        return at + length > size ? at + length : size;
    default: /* more */
        length = chance(most - size + 1) % 64;
        for (size_t i = 0; i < length; i++) data[size + i] = (uint8_t)chance(256);
        return size + length;
    }
}

static void read_seed(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || seed_count == MOST_SEEDS) exit(2);
    struct input *seed = &seeds[seed_count++];
    seed->data = malloc(most + 1);
    seed->size = fread(seed->data, 1, most, file);
    fclose(file);
}

int main(int count, char **words) {
    if (count < 5) return 2;
    uint64_t wanted = strtoull(words[1], NULL, 0);
    state = strtoull(words[2], NULL, 0) * 2 + 1;
    most = strtoul(words[3], NULL, 0);
    for (int i = 4; i < count; i++) read_seed(words[i]);
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(keep_input);
    signal(SIGABRT, on_signal);
    for (size_t i = 0; i < seed_count; i++) try(seeds[i].data, seeds[i].size);
    uint8_t *data = malloc(most + 64);
    while (tried < wanted) {
        const struct input *seed = &seeds[chance(seed_count)];
        size_t size = seed->size;
        memcpy(data, seed->data, size);
        for (uint64_t left = 1 + chance(6); left; left--) size = mutate(data, size);
        try(data, size);
    }
    free(data);
    printf("%lu\n", (unsigned long)tried);
    return 0;
}
