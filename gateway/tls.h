/*
 * TLS: the certificate that this server shows, and whose certificates it wants to see. An identity
 * is what was read from the files at one moment; connections keep the one that they began with, so
 * that a reload changes nothing under a handshake.
 */
#ifndef GATEWAY_TLS_H
#define GATEWAY_TLS_H

#include "unetserve/config.h"

#include <gnutls/gnutls.h>
#include <stddef.h>

/* TLS 1.2 and 1.3, no ciphers below 128 bits. */
#define TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

struct tls_identity;

/* Read tls_certificate, tls_key and, if it is set, tls_client_ca. 0 with *out, which is the
 * caller's until tls_identity_drop; or -EIO: a file cannot be read, -EINVAL: it
 * holds something else, -ENOMEM; with a sentence. */
int tls_identity_read(const struct config *config, struct tls_identity **out, char *error,
                      size_t error_size);

struct tls_identity *tls_identity_keep(struct tls_identity *identity);

/* The last one who drops it frees it. NULL is allowed. */
void tls_identity_drop(struct tls_identity *identity);

/* A session that has not begun shows this certificate and, with tls_client_ca, asks for one; the
 * handshake fails without. 0, or -EIO. The identity must outlive the session's handshake. */
int tls_identity_use(const struct tls_identity *identity, gnutls_session_t session);

#endif
