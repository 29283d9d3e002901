/*
 * Listening addresses as the configuration writes them: "127.0.0.1:8000", "[::1]:8000",
 * "unix:/path"; with "https://" before it, TLS is spoken there.
 */
#ifndef CONFIG_ADDRESS_H
#define CONFIG_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* Does it begin with https://? */
bool config_address_is_tls(const char *text);

/* The address without https://. */
const char *config_address_bare(const char *text);

/* 0 with a socket address to bind, or -EINVAL. No names are looked up; "localhost" alone is known,
 * as 127.0.0.1. */
int config_address_parse(const char *text, struct sockaddr_storage *out, socklen_t *length);

/* The same, back to text, without https://. 0, or -EAFNOSUPPORT / -ENOSPC. */
int config_address_format(const struct sockaddr_storage *address, socklen_t length, char *text,
                          size_t size);

/* Is this a network in CIDR form ("10.0.0.0/8", "::1", "192.168.1.7"), or "unix:", which is
 * everybody who comes over a Unix socket? 0 or -EINVAL. */
int config_network_check(const char *text);

#endif
