/* Records of lanes, as strangers send them, and their numbers (shim/lane/): only what was sealed is taken, and once. */
#include "lane/record.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "lane/siphash.h"
#include "lane/window.h"

static const uint8_t key[AS_LANE_KEY] = "nobody knows it"; /* nor the seeds */

/* Numbers close to one another, most of them new ones. */
static void use_some(const uint8_t *data, size_t size) {
    static struct as_window window;
    uint64_t number = 0;
    memset(&window, 0, sizeof window);
    for (size_t i = 0; i + 2 <= size; i += 2) {
        uint64_t highest = window.highest;
        number += (uint64_t)(int8_t)data[i] << data[i + 1] % 64;
        bool taken = use_number(&window, number);
        if (taken && use_number(&window, number)) abort();
        if (number > highest && !taken) abort();
        if (taken && number < highest && highest - number >= AS_WINDOW) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct as_lane_record record, sealed;
    uint8_t refusal[AS_REFUSAL];
    may_be_record(data, size < sizeof record ? size : sizeof record);
    if (size >= sizeof record) {
        memcpy(&record, data, sizeof record);
        if (is_sealed(&record, key)) abort(); /* 2^-128 */
        sealed = record;
        seal_record(&sealed, key);
        if (!is_sealed(&sealed, key) || !may_be_record(&sealed, size % (sizeof sealed + 1))) abort();
        make_refusal(&sealed, key, refusal);
        if (same_mac(refusal, sealed.mac)) abort();
        struct as_client_name name = name_of_record(&record, 1, data[4], AS_TCP_SERVER);
        if (name.source_port != be16toh(record.source_port) || (name.client_family != 4 && name.client_family != 6))
            abort();
        uint8_t mac[16];
        siphash128(key, data, size, mac);
    }
    use_some(data, size);
    return 0;
}
