/* libappswitch.so as it is written into a program that has no dynamic linker to load it. */
#ifndef APPSWITCH_TRACER_IMAGE_H
#define APPSWITCH_TRACER_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Offsets are from the library's base. */
struct image {
    uint8_t *bytes;
    size_t filled;                /* bytes that are given; what follows is zero */
    size_t size;                  /* in memory, whole pages */
    uint64_t text, text_size;     /* whole pages: what is executed */
    uint64_t entry;               /* landing.c */
    uint64_t constructors, count; /* the DT_INIT_ARRAY */
};

/* Loads it from the directory that `home` is a descriptor of; 0: from the one that this program is in. 0 or -errno. */
int load_image(struct image *image, int home);

/* Makes it fit for this place. */
void relocate_image(struct image *image, uint64_t base);

#endif
