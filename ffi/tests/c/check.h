/* What the C tests share: checks that name their line and the library's error text. */

#ifndef CHECK_H
#define CHECK_H

#include "ssl_edge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void fail(int line, const char *what) {
    printf("line %d: %s (last error: %s)\n", line, what, ssl_edge_last_error());
    exit(1);
}

#define CHECK(condition)                             \
    do {                                             \
        if (!(condition)) fail(__LINE__, #condition); \
    } while (0)

#define EXPECT(status, call) CHECK((call) == SSL_EDGE_STATUS_##status)

/* The call gives the status, and the error text says the words. */
#define REFUSED(status, words, call)                        \
    do {                                                    \
        EXPECT(status, call);                               \
        CHECK(strstr(ssl_edge_last_error(), words) != NULL); \
    } while (0)

static inline ssl_edge_encoder *open_encoder(const char *bundle, uint32_t engine, uint32_t precision) {
    ssl_edge_encoder_options options;
    ssl_edge_encoder *encoder = NULL;
    EXPECT(OK, ssl_edge_encoder_options_init(&options, sizeof options));
    options.engine = engine;
    options.precision = precision;
    EXPECT(OK, ssl_edge_encoder_open(bundle, &options, &encoder));
    return encoder;
}

#endif
